//! The oracle for loss: what was saved on which device, and what a person there ended by it.
//!
//! Something saved is known by the hash of its bytes, which are never saved twice. It is **ended**
//! by whoever replaced it (wrote to a handle that had shown it), or took the last name of it, by an
//! unlink or a rename over it. Whoever was **alone**, certainly without news from other devices,
//! ended just what they saw. Others may have been told of a later version in the instant before
//! they took the name, so they may have ended all that is akin to what they saw: what it was made
//! from, and all that was made from that.
//!
//! Everything saved that nobody ended must be in the final tree of every device under some name.

use crate::tree::{Kind, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How many acts may not be published yet when a daemon is killed.
const UNPUBLISHED: usize = 20;

/// What was saved: the hash of a file's bytes, or of a link's target.
pub type Saved = [u8; 32];

/// What one act saved and ended.
#[derive(Clone, Debug, Default)]
pub struct Act {
    /// Who did what, for people.
    pub what: String,
    /// Of which history.
    pub history: usize,
    /// On which device.
    pub device: usize,
    /// What is there since.
    pub saved: Option<Saved>,
    /// What the person saw go.
    pub ended: BTreeSet<Saved>,
    /// Whether it took a name, and didn't only change what is under it.
    pub takes_name: bool,
    /// Whether no news from another device can have come in between.
    pub alone: bool,
    /// Whether the device's daemon was killed so soon after that it may not have been published.
    pub struck: bool,
    /// Whether another device's change came in between, so that nobody knows what was ended.
    pub unclear: bool,
}

/// All acts of a play, in the order in which they were done.
#[derive(Debug, Default)]
pub struct Ledger {
    acts: Vec<Act>,
}

/// Something that was saved and is nowhere.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Of which history.
    pub history: usize,
    /// What is lost, for people.
    pub what: String,
}

/// The name of a file's content.
pub fn of_file(bytes: &[u8]) -> Saved {
    *blake3::hash(bytes).as_bytes()
}

/// The name of a link's target.
pub fn of_link(target: &[u8]) -> Saved {
    *blake3::keyed_hash(b"the target of a symbolic link is", target).as_bytes()
}

/// All that a tree shows.
pub fn visible(tree: &Tree) -> BTreeSet<Saved> {
    let shown = tree.nodes.values().filter_map(|node| match &node.kind {
        Kind::File(_, hash) => Some(*hash),
        Kind::Symlink(target) => Some(of_link(target.as_os_str().as_encoded_bytes())),
        _ => None,
    });
    shown.collect()
}

impl Act {
    /// What it saved and ended, for people.
    pub fn effect(&self) -> String {
        let mut text = match &self.saved {
            Some(saved) => format!("#{} is there", short(saved)),
            None => "nothing is there".into(),
        };
        for ended in &self.ended {
            let _ = write!(text, ", #{} ended", short(ended));
        }
        text
    }
}

impl Ledger {
    /// Adds an act.
    pub fn note(&mut self, act: Act) {
        self.acts.push(act);
    }

    /// What must be visible and isn't.
    pub fn lost(&self, visible: &BTreeSet<Saved>) -> Vec<Lost> {
        let (ended, next) = (self.ended(), self.akin());
        let mut told = BTreeSet::new();
        let mut lost = Vec::new();
        for act in &self.acts {
            let Some(saved) = act.saved else { continue };
            if visible.contains(&saved) || ended.contains(&saved) || self.was_taken_away(act, &next)
            {
                continue;
            }
            if told.insert(saved) {
                lost.push(Lost { history: act.history, what: self.about(saved) });
            }
        }
        lost
    }

    /// Everything that somebody ended.
    fn ended(&self) -> BTreeSet<Saved> {
        let next = self.akin();
        let mut ended = BTreeSet::new();
        for act in &self.acts {
            ended.extend(self.ended_by(act, &next));
        }
        ended
    }

    /// What was made from what, in both directions.
    fn akin(&self) -> BTreeMap<Saved, Vec<Saved>> {
        let mut next: BTreeMap<Saved, Vec<Saved>> = BTreeMap::new();
        for act in &self.acts {
            for before in &act.ended {
                next.entry(*before).or_default().extend(act.saved);
                if let Some(saved) = act.saved {
                    next.entry(saved).or_default().push(*before);
                }
            }
        }
        next
    }

    /// What one act ended, or may have ended.
    fn ended_by(&self, act: &Act, next: &BTreeMap<Saved, Vec<Saved>>) -> BTreeSet<Saved> {
        let mut ended = act.ended.clone();
        if act.takes_name && !act.alone {
            let mut waiting: Vec<Saved> = act.ended.iter().copied().collect();
            while let Some(before) = waiting.pop() {
                for after in next.get(&before).into_iter().flatten() {
                    if Some(*after) != act.saved && ended.insert(*after) {
                        waiting.push(*after);
                    }
                }
            }
        }
        if act.unclear {
            let same = self.acts.iter().filter(|other| other.history == act.history);
            ended.extend(same.filter_map(|other| other.saved));
        }
        ended
    }

    /// A device's daemon was killed.
    pub fn strike(&mut self, device: usize) {
        let own = self.acts.iter_mut().rev().filter(|act| act.device == device);
        own.take(UNPUBLISHED).for_each(|act| act.struck = true);
    }

    /// Whether the crash may have come with the news that somebody had taken the file's name: then
    /// there is nothing that it could come back beside.
    fn was_taken_away(&self, act: &Act, next: &BTreeMap<Saved, Vec<Saved>>) -> bool {
        let elsewhere = |other: &&Act| other.takes_name && other.device != act.device;
        !act.alone
            && self
                .acts
                .iter()
                .filter(elsewhere)
                .any(|other| self.ended_by(other, next).intersection(&act.ended).next().is_some())
    }

    fn about(&self, saved: Saved) -> String {
        let mut text = format!("#{} is nowhere:", short(&saved));
        for act in &self.acts {
            if act.saved == Some(saved) {
                let _ = write!(text, "\n    it was saved by {}", act.what);
            }
            if act.ended.contains(&saved) {
                let _ = write!(text, "\n    it was ended by {}", act.what);
            }
        }
        text
    }
}

/// The first digits of a name, as [`crate::tree::Node`] prints them.
pub fn short(saved: &Saved) -> String {
    format!("{:02x}{:02x}", saved[0], saved[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(device: usize, saved: Option<u8>, ended: &[u8], takes_name: bool, alone: bool) -> Act {
        let name = |byte: &u8| [*byte; 32];
        let ended = ended.iter().map(name).collect();
        Act { device, saved: saved.as_ref().map(name), ended, takes_name, alone, ..Act::default() }
    }

    #[test]
    fn what_nobody_ended_must_be_there() {
        let first = || act(0, Some(1), &[], false, true);
        let edit = || act(1, Some(2), &[1], false, true);
        let other = || act(0, Some(3), &[1], false, true);
        let removal = |alone| act(0, None, &[1], true, alone);
        let cases = [
            ("a file that nobody touched", vec![first()], vec![1]),
            ("a file that was replaced", vec![first(), edit()], vec![2]),
            ("an edit that the remover didn't know", vec![first(), edit(), removal(true)], vec![2]),
            (
                "an edit that the remover may have known",
                vec![first(), edit(), removal(false)],
                vec![],
            ),
            (
                "an edit beside the one that the remover saw and didn't know",
                vec![first(), edit(), other(), act(2, None, &[3], true, true)],
                vec![2],
            ),
            (
                "an edit beside the one that the remover saw and may have known",
                vec![first(), edit(), other(), act(2, None, &[3], true, false)],
                vec![],
            ),
        ];
        for (what, acts, must) in cases {
            let ledger = Ledger { acts };
            let lost = ledger.lost(&BTreeSet::new()).len();
            assert_eq!(lost, must.len(), "{what}");
            let visible = must.into_iter().map(|byte| [byte; 32]).collect();
            assert!(ledger.lost(&visible).is_empty(), "{what}");
        }
    }
}
