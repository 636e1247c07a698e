//! What each replica may have heard of: which commits of which others. A replica that goes back to
//! an older state goes on in a new timeline, so that what it did since is told from what it does
//! then.

use std::collections::BTreeMap;
use std::rc::Rc;

/// One line of commits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Timeline(u32);

impl Timeline {
    pub(super) fn first(replica: u8) -> Timeline {
        Timeline(u32::from(replica) << 16)
    }

    pub(super) fn next(self) -> Timeline {
        Timeline(self.0 + 1)
    }
}

/// The time at which a timeline had so many commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    pub(super) timeline: Timeline,
    pub(super) commits: usize,
}

/// For each timeline, up to which commit something of it may have been heard. Hearing of a commit
/// is hearing of all before it, which is more than what is certain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Heard(Rc<BTreeMap<Timeline, usize>>);

impl Heard {
    pub(super) fn hear(&mut self, moment: Moment) {
        if self.0.get(&moment.timeline).is_none_or(|upto| *upto < moment.commits) {
            Rc::make_mut(&mut self.0).insert(moment.timeline, moment.commits);
        }
    }

    pub(super) fn join(&mut self, other: &Heard) {
        if !Rc::ptr_eq(&self.0, &other.0) {
            for (timeline, commits) in &*other.0 {
                self.hear(Moment { timeline: *timeline, commits: *commits });
            }
        }
    }

    pub(super) fn has(&self, moment: Moment) -> bool {
        self.0.get(&moment.timeline).is_some_and(|upto| moment.commits <= *upto)
    }
}
