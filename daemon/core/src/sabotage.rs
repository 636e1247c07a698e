//! Faults that tests switch on, one at a time, to see that they are found. Only built with the
//! feature of this name, which nothing but the tests turns on.

use core::sync::atomic::{AtomicUsize, Ordering};

macro_rules! faults {
    ($($name:ident = $text:literal: $doc:literal;)*) => {
        /// A line that is broken.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault {
            $(#[doc = $doc] $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// Its name on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Fault::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    LastToArriveWins = "last-to-arrive-wins": "Of two values that differ the one that arrives wins.";
    LatestVersionWins = "latest-version-wins": "A later version drops concurrent ones.";
    CoveredStays = "covered-stays": "A version that another covers stays in its set.";
    RemovalsReplace = "removals-replace": "A later removal replaces an earlier one.";
    RemovalSeesAll = "removal-sees-all": "A removal counts as having seen every version.";
    LastNameForgotten = "last-name-forgotten": "A removal of one of several names takes the file.";
    CycleCutAnywhere = "cycle-cut-anywhere": "A cycle is cut at its earliest place.";
    CopiesHidden = "copies-hidden": "Versions that lost aren't shown.";
    KnowledgeTooEarly = "knowledge-too-early": "Knowledge is taken over before the log was had.";
    AnyDotCounts = "any-dot-counts": "A register of which one value is known isn't sent.";
    CursorTooFar = "cursor-too-far": "A batch that is full counts as all of the log.";
    CrashSplits = "crash-splits": "A batch's cursor is kept without the batch.";
    SlowClockLoses = "slow-clock-loses": "A stamp isn't later than that of the value it replaces.";
    AnyCursorCounts = "any-cursor-counts": "A place in another log counts as one in this.";
    PublishKeepsDots = "publish-keeps-dots": "A name that was withheld keeps its old dot.";
    ReleaseKeepsDots = "release-keeps-dots": "A removal that was withheld keeps its old dot.";
    WriterGoesOn = "writer-goes-on": "An uncertain start goes on under the former writer.";
    SupersededDropped = "superseded-dropped": "A version that was replaced isn't kept in history.";
    EqualSizeIsEqual = "equal-size-is-equal": "Files of one size count as equal.";
    LosersHidden = "losers-hidden": "Of files that replaced the same one only the last is shown.";
    OrdinalTaken = "ordinal-taken": "A numbered name is given out whether it is taken or not.";
    ContestsMissed = "contests-missed": "Who wants a name doesn't hear that it was vacated.";
    UnionsStay = "unions-stay": "A directory that left a union is shown as a part of it.";
    ForgotTooEarly = "forgot-too-early": "What not all are known to know is forgotten.";
    UnheardCounts = "unheard-counts": "A device that never said what it knows is not waited for.";
    YoungIsForgotten = "young-is-forgotten": "What was removed just now is forgotten.";
    OpenIsForgotten = "open-is-forgotten": "What somebody has open is forgotten.";
    DirectoriesFirst = "directories-first": "A directory is forgotten before what was in it.";
    HeardIgnored = "heard-ignored": "What others have forgotten lives on.";
    ChangedIsRemoved = "changed-is-removed": "What others have forgotten goes, changed or not.";
    KnownComesBack = "known-comes-back": "What others have forgotten goes on as new, changed or not.";
    WaitingStays = "waiting-stays": "What nobody moved out of something forgotten stays there.";
    RenewedKeepsDots = "renewed-keeps-dots": "A name that goes on as new keeps its old dot.";
    ForgottenNotTold = "forgotten-not-told": "Others are not told of what is forgotten.";
    HearsayLost = "hearsay-lost": "What others knew of what is forgotten isn't passed on.";
    IdentityKeepsWriter = "identity-keeps-writer": "Another identity goes on under the former writer.";
    FormerEndless = "former-endless": "Every place under a former writer counts as one in this log.";
    CopiesUnnoticed = "copies-unnoticed": "Somebody else in the peers' words isn't noticed.";
    RestoredIsCopied = "restored-is-copied": "An index that was put back counts as copied.";
    MergedGoesUnseen = "merged-goes-unseen": "A merged version goes though what is in it wasn't seen.";
    KeptDirectoriesGone = "kept-directories-gone": "What lives in a directory doesn't keep it.";
}

/// 0 for none, or the active fault's place in the list and 1.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Breaks one line, or none, in the whole process.
pub fn activate(fault: Option<Fault>) {
    let at = fault.and_then(|fault| Fault::ALL.iter().position(|other| *other == fault));
    ACTIVE.store(at.map_or(0, |at| at + 1), Ordering::SeqCst);
}

pub(crate) fn is_active(fault: Fault) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    active != 0 && Fault::ALL[active - 1] == fault
}
