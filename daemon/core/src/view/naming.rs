//! Which names are shown: groups are arranged, and labelled names are given out.
//!
//! Whoever stands unlabelled in a group has the group's name. Labelled names are given out among
//! those who want the same one, in the order of their nodes' keys: the first gets it, unless it is
//! a group's; the others get it with an ordinal, from 2, that makes it neither a group's name nor
//! one that another wants. An ordinal's place can be told from the name alone, so two who want
//! different names never meet, and no labelled name ever displaces a plain one.

use super::group::{Group, Member, arrange};
use crate::effect::Effect;
use crate::id::InodeId;
use crate::index::{Index, Shown};
use crate::name::EntryName;
use crate::register::Kind;
use crate::transaction::Transaction;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A name in a directory, as it is shown.
pub(crate) type At = (InodeId, EntryName);

/// A group's rows: who has the name, and who wants a labelled one (which is also in `name`, until
/// names are given out).
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) plain: Option<Shown>,
    pub(crate) labelled: Vec<Shown>,
}

impl Rows {
    pub(crate) fn new(at: &At, group: Group) -> Rows {
        let mut rows = Rows::default();
        for face in group.faces {
            let wanted = face.label.map(|label| at.1.labelled(&label, 1));
            let row = Shown {
                parent: at.0,
                name: wanted.clone().unwrap_or_else(|| at.1.clone()),
                node: face.node,
                entry: face.entry,
                base: at.1.clone(),
                wanted,
                repaired: face.repaired,
            };
            if row.wanted.is_some() {
                rows.labelled.push(row);
            } else {
                rows.plain = Some(row);
            }
        }
        rows
    }
}

/// Gives out names among those who want the same one. `is_free` says whether a name with an
/// ordinal is neither a group's nor wanted by another.
pub(crate) fn give_out<E>(
    mut wanting: Vec<Shown>,
    is_held: bool,
    mut is_free: impl FnMut(&EntryName) -> Result<bool, E>,
) -> Result<Vec<Shown>, E> {
    wanting.sort_by_key(|row| (row.node.key(), row.entry));
    let mut ordinal = 1;
    for (at, row) in wanting.iter_mut().enumerate() {
        let Some(wanted) = row.wanted.clone() else { continue };
        if at == 0 && !is_held {
            row.name = wanted;
            continue;
        }
        loop {
            ordinal += 1;
            row.name = wanted.numbered(ordinal);
            if is_free(&row.name)? || sabotaged!(OrdinalTaken) {
                break;
            }
        }
    }
    Ok(wanting)
}

/// What is known of the names during one refresh, before any is written.
struct Naming {
    groups: BTreeMap<At, Rows>,
    /// Those of the groups above who want a name.
    wanting: BTreeMap<At, Vec<Shown>>,
    old: BTreeMap<At, Shown>,
    new: BTreeMap<At, Shown>,
    /// Names among whose wanters they are to be given out anew.
    contested: BTreeSet<At>,
}

impl Naming {
    fn contest(&mut self, at: At) {
        if let Some(unnumbered) = at.1.unnumbered() {
            self.contested.insert((at.0, unnumbered));
        }
        self.contested.insert(at);
    }

    /// Whether some group has the name.
    fn is_held<I: Index>(&self, index: &I, at: &At) -> Result<bool, I::Error> {
        match self.groups.get(at) {
            Some(rows) => Ok(rows.plain.is_some()),
            None => Ok(index.shown(at.0, &at.1)?.is_some_and(|row| row.wanted.is_none())),
        }
    }

    /// Who wants a name, of those who want it as the index has it and of the groups.
    fn who_wants(&self, mut rows: Vec<Shown>, at: &At) -> Vec<Shown> {
        rows.retain(|row| !self.groups.contains_key(&(row.parent, row.base.clone())));
        rows.extend(self.wanting.get(at).into_iter().flatten().cloned());
        rows
    }
}

impl<I: Index> Transaction<'_, I> {
    /// Arranges all groups that were marked, and writes the names that changed.
    pub(crate) fn derive_names(&mut self) -> Result<(), I::Error> {
        let mut groups = BTreeMap::new();
        while let Some(at) = self.dirty.pop_first() {
            let members = self.members_at(&at)?;
            let kinds = members.iter().map(|member| (member.inode.inode.id, &member.inode.inode));
            let directories = kinds.filter(|(_, inode)| inode.kind == Kind::Directory);
            let directories: BTreeSet<InodeId> = directories.map(|(id, _)| id).collect();
            if let Some(first) = directories.first() {
                for directory in &directories {
                    self.set_representative(*directory, *first)?;
                }
            }
            let rows = Rows::new(&at, arrange(&members));
            groups.insert(at, rows);
        }
        if groups.is_empty() {
            return Ok(());
        }
        let mut naming = Naming {
            groups,
            wanting: BTreeMap::new(),
            old: BTreeMap::new(),
            new: BTreeMap::new(),
            contested: BTreeSet::new(),
        };
        self.compare_groups(&mut naming)?;
        self.settle_contests(&mut naming)?;
        self.write_names(&naming)
    }

    /// The present entries of a group, in the order of directories and ids.
    pub(crate) fn members_at(&mut self, at: &At) -> Result<Vec<Member>, I::Error> {
        let mut members = Vec::new();
        if self.representative(at.0)? != at.0 {
            return Ok(members);
        }
        for directory in self.index.members(at.0)? {
            for entry in self.index.entries_at(directory, &at.1)? {
                if !entry.present {
                    continue;
                }
                let Some(inode) = self.inode(entry.entry.inode)? else { continue };
                let copies_here = inode.inode.versions.len() > 1 && {
                    let entries = self.index.entries_of(inode.inode.id)?;
                    let first = entries.iter().find(|entry| entry.present);
                    first.is_some_and(|first| first.entry.id == entry.entry.id)
                };
                members.push(Member { entry, inode, copies_here });
            }
        }
        Ok(members)
    }

    /// Takes over what the groups have plainly, and finds the names that are contested by what
    /// changed in them.
    fn compare_groups(&mut self, naming: &mut Naming) -> Result<(), I::Error> {
        let groups = core::mem::take(&mut naming.groups);
        for (at, rows) in &groups {
            let mut was_held = false;
            let mut old_labelled = Vec::new();
            for old in self.index.shown_from(at.0, &at.1)? {
                if old.wanted.is_some() {
                    old_labelled.push(old);
                } else {
                    was_held = true;
                    naming.old.insert((at.0, old.name.clone()), old);
                }
            }
            if was_held != rows.plain.is_some() && !sabotaged!(ContestsMissed) {
                naming.contest(at.clone());
            }
            if let Some(plain) = &rows.plain {
                naming.new.insert(at.clone(), plain.clone());
            }
            let gist = |row: &Shown| (row.node, row.entry, row.wanted.clone());
            let before: BTreeSet<_> = old_labelled.iter().map(gist).collect();
            let after: BTreeSet<_> = rows.labelled.iter().map(gist).collect();
            if before != after {
                let wanted = old_labelled.iter().chain(&rows.labelled);
                for wanted in wanted.filter_map(|row| row.wanted.clone()) {
                    naming.contest((at.0, wanted));
                }
            }
            for row in &rows.labelled {
                let wanted = row.wanted.clone().expect("a labelled row wants a name");
                naming.wanting.entry((at.0, wanted)).or_default().push(row.clone());
            }
        }
        naming.groups = groups;
        Ok(())
    }

    fn settle_contests(&mut self, naming: &mut Naming) -> Result<(), I::Error> {
        for at in core::mem::take(&mut naming.contested) {
            let old = self.index.shown_wanting(at.0, &at.1)?;
            naming.old.extend(old.iter().map(|row| ((at.0, row.name.clone()), row.clone())));
            let wanting = naming.who_wants(old, &at);
            if wanting.is_empty() {
                continue;
            }
            let is_held = naming.is_held(self.index, &at)?;
            let rows = give_out(wanting, is_held, |name| {
                let at = (at.0, name.clone());
                let rows = self.index.shown_wanting(at.0, &at.1)?;
                let is_wanted = !naming.who_wants(rows, &at).is_empty();
                Ok::<_, I::Error>(!is_wanted && !naming.is_held(self.index, &at)?)
            })?;
            for row in rows {
                naming.new.insert((at.0, row.name.clone()), row);
            }
        }
        Ok(())
    }

    fn write_names(&mut self, naming: &Naming) -> Result<(), I::Error> {
        let mut links: BTreeMap<InodeId, i64> = BTreeMap::new();
        // What comes before what goes, so that a node that moves never is without a name.
        for (at, row) in &naming.new {
            let old = naming.old.get(at);
            if old == Some(row) {
                continue;
            }
            self.index.put_shown(row)?;
            let (was, is) = (old.map(|old| old.node.key()), row.node.key());
            if was != Some(is) {
                *links.entry(is).or_default() += 1;
                self.effects.insert(Effect::Name { parent: at.0, name: at.1.clone() });
                if let Some(was) = was {
                    *links.entry(was).or_default() -= 1;
                }
            }
        }
        for (at, row) in naming.old.iter().filter(|(at, _)| !naming.new.contains_key(at)) {
            self.index.remove_shown(at.0, &at.1)?;
            *links.entry(row.node.key()).or_default() -= 1;
            self.effects.insert(Effect::Name { parent: at.0, name: at.1.clone() });
        }
        for (key, change) in links {
            if change != 0 && !self.fresh.contains(&key) {
                self.effects.insert(Effect::Attributes { key });
            }
        }
        Ok(())
    }

    /// Takes a name out that nothing else has or wants, without looking.
    pub(crate) fn hide(&mut self, row: &Shown) -> Result<(), I::Error> {
        self.dirty.remove(&(row.parent, row.base.clone()));
        self.index.remove_shown(row.parent, &row.name)?;
        self.effects.insert(Effect::Name { parent: row.parent, name: row.name.clone() });
        self.effects.insert(Effect::Attributes { key: row.node.key() });
        Ok(())
    }

    /// Shows the one entry of a name that nothing else has or wants, without looking.
    pub(crate) fn show_fresh(&mut self, row: &Shown) -> Result<(), I::Error> {
        self.dirty.remove(&(row.parent, row.base.clone()));
        self.index.put_shown(row)?;
        self.effects.insert(Effect::Name { parent: row.parent, name: row.name.clone() });
        Ok(())
    }
}
