//! What stands at one name of one directory, and who of it gets the name.
//!
//! - Directories are one, the union, and take the name before anything else.
//! - Files of which one replaced the other, or which replaced the same one, count as versions of
//!   one content: the one with the latest version stands for them, the others are conflict copies.
//! - Of what then stands at the name, the earliest keeps it, and the others are labelled with the
//!   device that put them there.
//! - Of several versions of one file the latest is the file, the others are conflict copies.
//! - Equal bytes are shown once, under the best name that any of them has by these rules; empty
//!   files are told apart, because they may be about to be filled. So are hard links at one name.

use super::{label, outlives};
use crate::clock::Stamp;
use crate::content::Content;
use crate::id::{Dot, EntryId, InodeId};
use crate::index::{EntryState, InodeState, Node};
use crate::register::{Inode, Kind};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

/// A present entry of the group.
pub(crate) struct Member {
    pub(crate) entry: EntryState,
    pub(crate) inode: Rc<InodeState>,
    /// Whether the copies of the inode stand beside this entry: it is the inode's first.
    pub(crate) copies_here: bool,
}

/// Something that is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Face {
    pub(crate) node: Node,
    pub(crate) entry: EntryId,
    /// What it is labelled with. `None` has the name itself: the first face, and only it.
    pub(crate) label: Option<String>,
    pub(crate) repaired: bool,
}

/// A group, arranged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Group {
    pub(crate) faces: Vec<Face>,
    /// The entries that aren't shown because another of the group shows the same.
    pub(crate) hidden: Vec<EntryId>,
}

/// Bytes that are shown once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Bytes<'a> {
    Content(&'a Content),
    Target(&'a [u8]),
}

fn bytes_of(inode: &Inode) -> Option<Bytes<'_>> {
    match &inode.kind {
        Kind::Symlink(target) => Some(Bytes::Target(target)),
        Kind::File => inode.latest().and_then(|version| bytes(&version.content)),
        _ => None,
    }
}

fn bytes(content: &Content) -> Option<Bytes<'_>> {
    if sabotaged!(EqualSizeIsEqual) {
        return Some(Bytes::Target(b"any"));
    }
    (content.size_bytes > 0).then_some(Bytes::Content(content))
}

impl Member {
    fn id(&self) -> InodeId {
        self.inode.inode.id
    }

    fn is_directory(&self) -> bool {
        self.inode.inode.kind == Kind::Directory
    }

    /// Earlier members of a group keep the name.
    fn since(&self) -> (Stamp, EntryId) {
        (self.entry.entry.place.stamp, self.entry.entry.id)
    }

    /// When it was last changed, by its content, or by its place if it has none.
    fn changed(&self) -> (Stamp, Dot) {
        let latest = self.inode.inode.latest();
        latest.map_or((self.entry.entry.place.stamp, self.id().0), |it| (it.stamp, it.dot))
    }

    fn is_repaired(&self) -> bool {
        !outlives(&self.entry) || self.entry.shown_parent != self.entry.entry.place.parent
    }

    fn conflict_label(&self) -> String {
        let place = &self.entry.entry.place;
        let latest = self.inode.inode.latest();
        latest.map_or_else(|| label::conflict_of(&place.author, place.stamp.hlc), label::conflict)
    }
}

/// Arranges what stands at a name.
pub(crate) fn arrange(members: &[Member]) -> Group {
    let mut group = Group::default();
    let directories = members.iter().filter(|member| member.is_directory());
    let directory = directories.min_by_key(|member| member.id());
    if let Some(member) = directory {
        group.show(member, None);
    }
    let mut files: BTreeMap<InodeId, &Member> = BTreeMap::new();
    for member in members.iter().filter(|member| !member.is_directory()) {
        if let Some(other) = files.insert(member.id(), member) {
            let (first, second) =
                if other.since() < member.since() { (other, member) } else { (member, other) };
            files.insert(first.id(), first);
            group.hidden.push(second.entry.entry.id);
        }
    }
    let mut seen = BTreeSet::new();
    let mut losers = Vec::new();
    let mut clusters = clusters(&files, members);
    for cluster in &mut clusters {
        cluster.sort_by_key(|member| core::cmp::Reverse((member.changed(), member.id())));
    }
    clusters.sort_by_key(|cluster| cluster.iter().map(|member| member.since()).min());
    for cluster in clusters {
        let mut cluster = cluster.into_iter();
        let Some(winner) = cluster.next() else { continue };
        if !sabotaged!(LosersHidden) {
            losers.extend(cluster);
        }
        let label = winner.entry.entry.place.author.clone();
        let label = (!group.faces.is_empty()).then_some(label);
        group.show_once(winner, label, &mut seen);
    }
    losers.sort_by_key(|member| member.id());
    for member in losers {
        group.show_once(member, Some(member.conflict_label()), &mut seen);
    }
    let with_copies = |member: &&Member| member.copies_here && !sabotaged!(CopiesHidden);
    for member in members.iter().filter(with_copies) {
        group.show_copies(member, &mut seen);
    }
    if group.faces.len() + group.hidden.len() > 1 || members.len() > 1 {
        group.faces.iter_mut().for_each(|face| face.repaired = true);
    }
    group
}

/// The files by content: those of which one replaced the other, or which replaced the same one,
/// are together.
fn clusters<'m>(files: &BTreeMap<InodeId, &'m Member>, all: &[Member]) -> Vec<Vec<&'m Member>> {
    let mut ends: BTreeMap<InodeId, InodeId> = BTreeMap::new();
    fn end(ends: &BTreeMap<InodeId, InodeId>, mut of: InodeId) -> InodeId {
        while let Some(next) = ends.get(&of) {
            of = *next;
        }
        of
    }
    for member in all.iter().filter(|member| !member.is_directory()) {
        if let Some(replaced) = member.entry.entry.place.replaced {
            let (mine, theirs) = (end(&ends, member.id()), end(&ends, replaced.inode));
            if mine != theirs {
                ends.insert(mine, theirs);
            }
        }
    }
    let mut clusters: BTreeMap<InodeId, Vec<&Member>> = BTreeMap::new();
    for (id, member) in files {
        clusters.entry(end(&ends, *id)).or_default().push(member);
    }
    clusters.into_values().collect()
}

impl Group {
    fn show(&mut self, member: &Member, label: Option<String>) {
        let repaired = label.is_some() || member.is_repaired();
        let (node, entry) = (Node::Inode(member.id()), member.entry.entry.id);
        self.faces.push(Face { node, entry, label, repaired });
    }

    fn show_once<'m>(
        &mut self,
        member: &'m Member,
        label: Option<String>,
        seen: &mut BTreeSet<Bytes<'m>>,
    ) {
        if bytes_of(&member.inode.inode).is_none_or(|bytes| seen.insert(bytes)) {
            self.show(member, label);
        } else {
            self.hidden.push(member.entry.entry.id);
        }
    }

    /// The versions that aren't the file, unless their bytes are shown already.
    fn show_copies<'m>(&mut self, member: &'m Member, seen: &mut BTreeSet<Bytes<'m>>) {
        let inode = &member.inode.inode;
        let Some(latest) = inode.latest() else { return };
        let mut own: BTreeSet<&Content> = BTreeSet::from([&latest.content]);
        for version in inode.versions.values().filter(|version| version.dot != latest.dot) {
            let fresh = own.insert(&version.content);
            if fresh && bytes(&version.content).is_none_or(|bytes| seen.insert(bytes)) {
                self.faces.push(Face {
                    node: Node::Copy { inode: inode.id, version: version.dot },
                    entry: member.entry.entry.id,
                    label: Some(label::conflict(version)),
                    repaired: true,
                });
            }
        }
    }
}
