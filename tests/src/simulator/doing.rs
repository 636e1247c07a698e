//! What people do in a simulation, and the themes that make some of it more likely in a history.

use crate::random::Random;

/// A kind of thing that a person does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// Saves a new file.
    Create,
    /// Makes a directory.
    MakeDirectory,
    /// Makes a symbolic link.
    MakeSymlink,
    /// Opens a file for writing, and keeps it open.
    Open,
    /// Closes a file that is open, which publishes it.
    Close,
    /// Publishes a file that stays open, as an fsync does.
    Flush,
    /// Opens a file, changes it and closes it.
    Edit,
    /// Saves as editors do: a new file, renamed over the old one.
    SaveOver,
    /// Gives a file one more name.
    Link,
    /// Renames something, also onto something or in exchange with it.
    Rename,
    /// Moves a directory into another.
    MoveDirectory,
    /// Removes a file.
    Remove,
    /// Removes a directory, mostly with everything in it.
    RemoveTree,
    /// Changes a mode or an extended attribute.
    SetAttributes,
    /// Has a repair written down.
    Settle,
    /// Makes one version of several, as a device does by itself where lines don't overlap.
    Merge,
}

/// What a history is mostly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Theme {
    Founding,
    Everything,
    Moves,
    Links,
    Saves,
    Removals,
    Names,
}

impl Theme {
    pub(super) fn draw(random: &mut Random) -> Theme {
        use Theme::{Everything, Links, Moves, Names, Removals, Saves};
        *random.pick(&[Everything, Everything, Moves, Moves, Links, Saves, Removals, Names])
    }

    pub(super) fn pick(self, random: &mut Random) -> Doing {
        use Doing::{
            Close, Create, Edit, Flush, Link, MakeDirectory, MakeSymlink, Merge, MoveDirectory,
            Open, Remove, RemoveTree, Rename, SaveOver, SetAttributes, Settle,
        };
        let weighted: &[(Doing, u64)] = match self {
            Theme::Founding => &[(Create, 4), (MakeDirectory, 5), (Link, 1), (MakeSymlink, 1)],
            Theme::Everything => &[
                (Create, 5),
                (MakeDirectory, 3),
                (MakeSymlink, 1),
                (Open, 2),
                (Close, 1),
                (Flush, 1),
                (Edit, 4),
                (SaveOver, 3),
                (Link, 2),
                (Rename, 3),
                (MoveDirectory, 3),
                (Remove, 2),
                (RemoveTree, 1),
                (SetAttributes, 1),
                (Settle, 1),
                (Merge, 2),
            ],
            Theme::Moves => &[
                (MoveDirectory, 12),
                (MakeDirectory, 3),
                (Create, 2),
                (Rename, 2),
                (RemoveTree, 2),
                (Edit, 1),
            ],
            Theme::Links => &[
                (Link, 6),
                (Remove, 4),
                (Edit, 3),
                (Create, 2),
                (Rename, 3),
                (SaveOver, 1),
                (Settle, 1),
            ],
            Theme::Saves => &[
                (SaveOver, 8),
                (Edit, 5),
                (Create, 2),
                (Open, 3),
                (Close, 2),
                (Flush, 2),
                (Rename, 2),
                (Settle, 1),
                (Merge, 3),
            ],
            Theme::Removals => &[
                (Remove, 5),
                (RemoveTree, 4),
                (Create, 5),
                (Edit, 4),
                (MakeDirectory, 3),
                (Rename, 2),
                (MoveDirectory, 2),
                (SaveOver, 1),
            ],
            Theme::Names => &[
                (Create, 8),
                (MakeDirectory, 4),
                (MakeSymlink, 2),
                (Rename, 5),
                (Remove, 2),
                (Edit, 2),
                (Settle, 1),
            ],
        };
        let all: u64 = weighted.iter().map(|(_, weight)| weight).sum();
        let mut at = random.below(all);
        for (doing, weight) in weighted {
            if at < *weight {
                return *doing;
            }
            at -= weight;
        }
        unreachable!("the weights add up to {all}")
    }
}
