//! What raises an alarm, and what doesn't.

use super::*;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// A day in 2026.
const TODAY: u64 = 1_795_651_200_000;
const W: WriterId = WriterId(7);

/// One file that is taken away: when by the doer's clock, when it is heard of, how, and its size.
#[derive(Clone, Copy)]
struct Deed {
    at: u64,
    heard: u64,
    taken: Taken,
    bytes: u64,
}

fn deed(at: u64, taken: Taken) -> Deed {
    Deed { at, heard: at, taken, bytes: 1000 }
}

fn loss(deed: &Deed) -> Loss {
    let (at, heard) = (Hlc::at(WallMs(deed.at)), WallMs(deed.heard));
    Loss { writer: W, author: None, at, heard, taken: deed.taken, bytes: deed.bytes }
}

/// A device that watches a share of so many files of 1000 bytes while deeds are heard of, in
/// batches of ten at most. Removed files are gone from it, others not.
struct Watched {
    watch: Watch,
    extent: Extent,
    raised: usize,
}

impl Watched {
    fn of(files: u64) -> Self {
        let extent = Extent { files, bytes: files * 1000 };
        Watched { watch: Watch::default(), extent, raised: 0 }
    }

    fn hear(&mut self, deeds: &[Deed]) -> &mut Self {
        let mut rest = deeds;
        while let Some(first) = rest.first() {
            let same = rest.iter().take(10).take_while(|deed| deed.heard == first.heard).count();
            let (batch, later) = rest.split_at(same);
            let before = self.extent;
            for deed in batch {
                self.watch.count(&loss(deed), before);
                if deed.taken != Taken::Overwritten {
                    self.extent.files = self.extent.files.saturating_sub(1);
                    self.extent.bytes = self.extent.bytes.saturating_sub(deed.bytes);
                }
            }
            self.raised += self.watch.review(self.extent).len();
            // It comes back from its row as it was.
            self.watch = Watch::decode(&self.watch.encode()).unwrap();
            rest = later;
        }
        self
    }

    fn counts(&self) -> Vec<(u64, u64)> {
        self.watch.alarms().iter().map(|alarm| (alarm.removed, alarm.overwritten)).collect()
    }
}

/// `count` deeds, one each `every` milliseconds.
fn deeds(count: u64, from: u64, every: u64, taken: Taken) -> Vec<Deed> {
    (0..count).map(|number| deed(from + number * every, taken)).collect()
}

fn heard_at(heard: u64, mut deeds: Vec<Deed>) -> Vec<Deed> {
    deeds.iter_mut().for_each(|deed| deed.heard = heard);
    deeds
}

#[test]
fn a_large_part_within_an_hour_raises_an_alarm_and_ordinary_work_does_not() {
    use Taken::{Overwritten, Removed};
    let month = |count| deeds(count, TODAY - 30 * DAY, 30 * DAY / count, Removed);
    let mut backwards = heard_at(TODAY, month(3000));
    backwards.reverse();
    let stands_still = |every| {
        let mut deeds = deeds(1000, TODAY, 0, Removed);
        deeds.iter_mut().enumerate().for_each(|(number, it)| it.heard += number as u64 * every);
        deeds
    };
    let big = |count, bytes| {
        let mut deeds = deeds(count, TODAY, 1000, Removed);
        deeds.iter_mut().for_each(|deed| deed.bytes = bytes);
        deeds
    };
    let cases = [
        ("rm -rf of everything", 20_000, deeds(20_000, TODAY, 1, Removed), true),
        ("rm -rf of a quarter", 20_000, deeds(5_000, TODAY, 1, Removed), true),
        ("rm -rf of a tenth", 20_000, deeds(2_000, TODAY, 1, Removed), false),
        ("cleaning a build directory", 20_000, deeds(3_500, TODAY, 1, Removed), false),
        ("git gc", 1_000, deeds(150, TODAY, 1, Removed), false),
        ("git checkout of a few", 300, deeds(60, TODAY, 1, Overwritten), false),
        ("tidying by hand, a small share", 120, deeds(90, TODAY, 1, Removed), false),
        ("encrypting all in place", 20_000, deeds(20_000, TODAY, 20, Overwritten), true),
        ("encrypting slowly", 20_000, deeds(20_000, TODAY, 800, Overwritten), true),
        ("working for a month, live", 20_000, month(15_000), false),
        ("coming home after a month", 20_000, heard_at(TODAY, month(15_000)), false),
        ("coming home, last change first", 4_000, backwards, false),
        (
            "coming home after an rm -rf a month ago",
            20_000,
            heard_at(TODAY, deeds(20_000, TODAY - 30 * DAY, 1, Removed)),
            true,
        ),
        (
            "coming home after a month of work and an rm -rf in it",
            20_000,
            heard_at(TODAY, [month(5_000), deeds(9_000, TODAY - 9 * DAY, 1, Removed)].concat()),
            true,
        ),
        ("a clock in 1970", 20_000, heard_at(TODAY, deeds(20_000, 1, 1, Removed)), true),
        (
            "a clock years ahead",
            20_000,
            heard_at(TODAY, deeds(20_000, TODAY + 3650 * DAY, 1, Removed)),
            true,
        ),
        ("a clock that stands still for a year", 3_000, stands_still(DAY / 3), false),
        ("a clock that stands still for an hour", 3_000, stands_still(1000), true),
        ("a few large files, few of all bytes", 4_000_000, big(20, 20 << 20), false),
        ("a few large files, most of all bytes", 400_000, big(20, 20 << 20), true),
        ("one large file", 400_000, big(1, 380 << 20), false),
    ];
    for (name, files, deeds, alarms) in cases {
        let mut watched = Watched::of(files);
        watched.hear(&deeds);
        let standing = watched.watch.alarms().len();
        assert_eq!(standing > 0, alarms, "{name}: {:?}", watched.watch.alarms());
        assert!(watched.raised <= 1, "{name} was told {} times", watched.raised);
    }
}

#[test]
fn temporary_files_of_a_device_s_own_are_nothing_but_its_removing_them_all_is() {
    use Taken::RemovedYoung;
    let mut editor = Watched::of(300);
    for deed in deeds(1000, TODAY, 1000, RemovedYoung) {
        // Each is written again.
        editor.extent.files += 1;
        editor.hear(&[deed]);
    }
    assert_eq!(editor.counts(), []);
    let mut mistake = Watched::of(300);
    mistake.hear(&deeds(290, TODAY, 1, RemovedYoung));
    assert_eq!(mistake.counts(), [(290, 0)]);
}

#[test]
fn an_alarm_grows_while_it_goes_on_and_another_is_another() {
    use Taken::{Overwritten, Removed};
    let mut watched = Watched::of(2_000);
    watched.hear(&deeds(500, TODAY, 1000, Removed));
    watched.hear(&deeds(40, TODAY + 50 * MINUTE, 1000, Overwritten));
    assert_eq!(watched.counts(), [(500, 40)]);
    let alarm = watched.watch.alarms()[0];
    assert_eq!((alarm.begin.wall().0, alarm.files), (TODAY, 2_000));
    assert_eq!(alarm.end.wall().0, TODAY + 50 * MINUTE + 39_000);
    watched.hear(&deeds(600, TODAY + 5 * DAY, 1, Overwritten));
    assert_eq!(watched.counts(), [(500, 40), (0, 600)]);
    assert_eq!(watched.raised, 2);
    // What comes between joins them in time.
    for hours in 1..122 {
        watched.hear(&[deed(TODAY + 50 * MINUTE + hours * 59 * MINUTE, Removed)]);
    }
    assert_eq!(watched.watch.alarms().len(), 1);
}

#[test]
fn what_was_meant_is_over_and_what_comes_after_it_is_not() {
    let mut watched = Watched::of(1_000);
    let gone = deeds(400, TODAY, 1000, Taken::Removed);
    watched.hear(&gone);
    let end = watched.watch.alarms()[0].end;
    let mut partly = watched.watch.clone();
    assert!(partly.mean(Hlc::at(WallMs(TODAY + 1000))));
    assert_eq!(partly.alarms().len(), 1, "nobody has seen the rest of it");
    assert!(watched.watch.mean(end));
    assert!(!watched.watch.mean(end), "to say it again changes nothing");
    assert_eq!(watched.watch.held_since(WallMs(TODAY)), None);
    // Another device tells of the same once more.
    watched.hear(&gone);
    assert_eq!(watched.counts(), []);
    watched.hear(&deeds(400, TODAY + 30 * MINUTE, 1, Taken::Removed));
    assert_eq!(watched.counts(), [(400, 0)]);
}

#[test]
fn everything_that_an_alarm_touched_is_held_by_whatever_clock() {
    for (clock, heard, held) in [
        (TODAY, TODAY + MINUTE, TODAY),
        (TODAY - 3650 * DAY, TODAY, TODAY - 3650 * DAY),
        (TODAY + 3650 * DAY, TODAY, TODAY),
    ] {
        let mut watched = Watched::of(1_000);
        watched.hear(&heard_at(heard, deeds(300, clock, 1, Taken::Overwritten)));
        let much_later = WallMs(TODAY + 9999 * DAY);
        assert_eq!(watched.watch.held_since(much_later), Some(WallMs(held)));
    }
}

#[test]
fn what_may_become_an_alarm_is_held_for_a_few_minutes() {
    let mut watched = Watched::of(1_000);
    watched.hear(&deeds(49, TODAY, 0, Taken::Removed));
    assert_eq!(watched.watch.held_since(WallMs(TODAY)), None);
    watched.hear(&deeds(3, TODAY + MINUTE, 0, Taken::Removed));
    for (minutes, held) in [(1, true), (10, true), (12, false)] {
        let held = held.then_some(WallMs(TODAY));
        assert_eq!(watched.watch.held_since(WallMs(TODAY + minutes * MINUTE)), held);
    }
}

#[test]
fn a_writer_takes_a_bounded_place() {
    let mut watched = Watched::of(1_000_000);
    for day in 0..400 {
        watched.hear(&deeds(30, TODAY + day * DAY, 1, Taken::Removed));
    }
    for day in 0..40 {
        watched.extent = Extent { files: 200, bytes: 1 };
        watched.hear(&deeds(150, TODAY + day * DAY, 1, Taken::Overwritten));
    }
    assert!(watched.watch.alarms().len() <= ALARMS_MAX);
    assert!(watched.watch.encode().len() < 4096);
}

#[test]
fn what_is_no_watch_is_refused() {
    let bytes = Watched::of(9).hear(&deeds(9, TODAY, 1, Taken::Removed)).watch.encode();
    assert!(Watch::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(Watch::decode(&[0xff; 9]).is_err());
    assert_eq!(Watch::decode(&Watch::default().encode()), Ok(Watch::default()));
}
