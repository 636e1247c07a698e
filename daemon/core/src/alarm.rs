//! When one device takes away a large part of a share within a short time.
//!
//! Every file that another device removes or overwrites is a [`Loss`]. A [`Watch`] counts the losses
//! that one writer makes, by the time at which it made them: what comes home after a month counts
//! for the days on which it was done, and what was done in an hour counts as that hour whenever it
//! comes. A large part within [`WINDOW_MS`] raises an [`Alarm`], which stands, and grows while
//! it goes on, until a person has said that it was meant.
//!
//! What a device removed of its own recent making counts only as far as the share has become
//! smaller, so that programs may write and remove temporary files as often as they like. A file
//! counts once in a window, however often it is saved.

use crate::clock::{Hlc, WallMs};
use crate::codec::{
    DecodeError, Writer, decode_whole, read_array, read_author, read_fields, read_tuple,
};
use crate::id::WriterId;
use crate::register::{Author, Unread};
use alloc::vec::Vec;
use core::ops::Range;
use minicbor::Decoder;

/// The time within which losses are counted together: an hour. A large disk takes that long to
/// encrypt, and nobody means to rewrite a large part of a share in it.
pub const WINDOW_MS: u64 = 3600 * 1000;
/// Losses are counted by this much time, so a window is that much shorter or longer.
const SLOT_MS: u64 = WINDOW_MS / 12;
/// How much later than the first of a slot others of it may be heard of, to be counted with it: a
/// device whose clock stands still does a year's work in one minute.
const HEARD_WITHIN_MS: u64 = 24 * 3600 * 1000;
/// How long a part that isn't large yet is held, after the last of it was heard of: the rest of it
/// may be on its way.
const SUSPECT_MS: u64 = 10 * 60 * 1000;
/// A large part by number: at least so many files, and one in so many of all there were.
const FILES_MIN: u64 = 100;
const FILES_DIVISOR: u64 = 5;
/// A large part by size: at least so many files and bytes, and one in so many of all bytes.
const BIG_FILES_MIN: u64 = 10;
const BIG_BYTES_MIN: u64 = 256 << 20;
const BYTES_DIVISOR: u64 = 2;
/// How large, in parts of a large part, one is that may be on its way to be large.
const SUSPECT_DIVISOR: u64 = 4;
/// How many slots are remembered of a writer: those with the most losses.
const SLOTS_MAX: usize = 32;
/// How many alarms stand for one writer; more are put together.
const ALARMS_MAX: usize = 8;

/// How a file was taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Its last name was removed.
    Removed,
    /// Its last name was removed by the device that had made it less than [`WINDOW_MS`] before.
    RemovedYoung,
    /// Other bytes are in its place.
    Overwritten,
}

/// A file that another device removed or overwrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Who did it.
    pub writer: WriterId,
    /// The device's name, if it was said.
    pub author: Option<Author>,
    /// When, by the clock of whoever did it.
    pub at: Hlc,
    /// When this device heard of it.
    pub heard: WallMs,
    /// How.
    pub taken: Taken,
    /// The size of the file before, in bytes.
    pub bytes: u64,
}

/// How much there is in a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// Files, by their names.
    pub files: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

/// A large part of a share that one writer took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// When the first of it was done, by the clock of whoever did it.
    pub begin: Hlc,
    /// When the last of it was.
    pub end: Hlc,
    /// When this device heard of the first of it.
    pub heard: WallMs,
    /// How many files were removed.
    pub removed: u64,
    /// How many were overwritten.
    pub overwritten: u64,
    /// Their sizes before, in bytes.
    pub bytes: u64,
    /// How many files there were.
    pub files: u64,
}

/// The losses of a few minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Slot {
    first: u64,
    last: u64,
    heard_first: u64,
    heard_last: u64,
    removed: u64,
    young: u64,
    overwritten: u64,
    bytes: u64,
    young_bytes: u64,
    /// The most that there was in the share, before any of this.
    files_before: u64,
    bytes_before: u64,
}

/// What is known of one writer's losses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// The name of its device when it last made one.
    pub device: Option<Author>,
    /// Up to when everything it did was meant.
    pub meant: Hlc,
    slots: Vec<Slot>,
    alarms: Vec<Alarm>,
}

impl Slot {
    fn number(&self) -> u64 {
        Hlc(self.first).wall().0 / SLOT_MS
    }

    fn touched(&self) -> u64 {
        self.removed + self.young + self.overwritten
    }

    fn add(&mut self, other: &Slot) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.heard_first = self.heard_first.min(other.heard_first);
        self.heard_last = self.heard_last.max(other.heard_last);
        self.removed += other.removed;
        self.young += other.young;
        self.overwritten += other.overwritten;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.young_bytes = self.young_bytes.saturating_add(other.young_bytes);
        self.files_before = self.files_before.max(other.files_before);
        self.bytes_before = self.bytes_before.max(other.bytes_before);
    }

    /// Everything it holds as an alarm, given what there is now.
    fn alarm(&self, now: Extent) -> Alarm {
        let missing = self.files_before.saturating_sub(now.files);
        let young = self.young.min(missing.saturating_sub(self.removed));
        let young_bytes = match young {
            0 => 0,
            _ => u128::from(self.young_bytes) * u128::from(young) / u128::from(self.young),
        };
        let removed = self.removed + young;
        Alarm {
            begin: Hlc(self.first),
            end: Hlc(self.last),
            heard: WallMs(self.heard_first),
            removed,
            overwritten: self.overwritten,
            bytes: self.bytes.saturating_add(u64::try_from(young_bytes).unwrap_or(u64::MAX)),
            files: self.files_before.max(removed + self.overwritten),
        }
    }
}

impl Alarm {
    /// Whether it is a large part, or the `divisor`th of one.
    fn is_large(&self, bytes_before: u64, divisor: u64) -> bool {
        let files = (self.removed + self.overwritten).saturating_mul(divisor);
        let bytes = self.bytes.saturating_mul(divisor);
        let by_number = files >= FILES_MIN && files.saturating_mul(FILES_DIVISOR) >= self.files;
        let by_size = files >= BIG_FILES_MIN
            && bytes >= BIG_BYTES_MIN
            && bytes.saturating_mul(BYTES_DIVISOR) >= bytes_before;
        by_number || by_size
    }

    fn reaches(&self, at: Hlc) -> bool {
        at.wall().0 <= self.end.wall().0.saturating_add(WINDOW_MS)
            && at.wall().0.saturating_add(WINDOW_MS) >= self.begin.wall().0
    }

    fn join(&mut self, other: &Alarm) {
        self.begin = self.begin.min(other.begin);
        self.end = self.end.max(other.end);
        self.heard = self.heard.min(other.heard);
        self.removed += other.removed;
        self.overwritten += other.overwritten;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.max(other.files).max(self.removed + self.overwritten);
    }

    /// Nothing that was replaced or removed at this time or later, by any clock, is let go. What
    /// was removed carries the time of whoever did it, what was replaced that of hearing of it.
    #[must_use]
    pub fn held_since(&self) -> WallMs {
        self.begin.wall().min(self.heard)
    }
}

/// Whether a writer did the later of two things within a window after the earlier one.
#[must_use]
pub fn is_soon_after(earlier: Hlc, later: Hlc) -> bool {
    later.wall().0.saturating_sub(earlier.wall().0) <= WINDOW_MS
}

impl Watch {
    /// Counts a loss. `before` is what there was in the share before any of the losses that come
    /// with it.
    pub fn count(&mut self, loss: &Loss, before: Extent) {
        if loss.author.is_some() {
            self.device.clone_from(&loss.author);
        }
        if loss.at <= self.meant {
            return;
        }
        let (removed, young, overwritten) = match loss.taken {
            Taken::Removed => (1, 0, 0),
            Taken::RemovedYoung => (0, 1, 0),
            Taken::Overwritten => (0, 0, 1),
        };
        let slot = Slot {
            first: loss.at.0,
            last: loss.at.0,
            heard_first: loss.heard.0,
            heard_last: loss.heard.0,
            removed,
            young,
            overwritten,
            bytes: if young == 0 { loss.bytes } else { 0 },
            young_bytes: if young == 0 { 0 } else { loss.bytes },
            files_before: before.files,
            bytes_before: before.bytes,
        };
        // What goes on belongs to the alarm, and nobody cares any more what of it was young.
        if let Some(alarm) = self.alarms.iter_mut().find(|alarm| alarm.reaches(loss.at)) {
            alarm.join(&slot.alarm(Extent::default()));
            self.join_alarms();
            return;
        }
        match self.slots.binary_search_by_key(&slot.number(), Slot::number) {
            Ok(at) => {
                let known = &mut self.slots[at];
                if known.heard_first.saturating_add(HEARD_WITHIN_MS) < slot.heard_first {
                    *known = slot;
                } else {
                    known.add(&slot);
                }
            }
            Err(at) => {
                self.slots.insert(at, slot);
                self.drop_least(at);
            }
        }
    }

    /// Makes room for the slot at `new`. Ordinary days give way, in whatever order they come.
    fn drop_least(&mut self, new: usize) {
        if self.slots.len() > SLOTS_MAX {
            let others = (0..self.slots.len()).filter(|at| *at != new);
            let least = others.min_by_key(|at| self.slots[*at].touched());
            self.slots.remove(least.expect("there are more than one"));
        }
    }

    /// Looks whether what was counted is a large part, given what there is in the share now.
    /// Answers the alarms that are new.
    pub fn review(&mut self, now: Extent) -> Vec<Alarm> {
        let mut raised = Vec::new();
        while let Some((window, sum)) = self.large_window(now) {
            self.slots.drain(window);
            let mut alarm = sum.alarm(now);
            // What was done shortly before and after is part of it, at whatever pace.
            let is_near = |slot: &Slot| alarm.reaches(Hlc(slot.first));
            let (near, far): (Vec<_>, Vec<_>) = self.slots.drain(..).partition(is_near);
            self.slots = far;
            near.iter().for_each(|slot| alarm.join(&slot.alarm(now)));
            self.alarms.push(alarm);
            raised.push(alarm);
            self.join_alarms();
        }
        raised
    }

    fn large_window(&self, now: Extent) -> Option<(Range<usize>, Slot)> {
        let latest = self.slots.iter().map(|slot| slot.heard_last).max();
        // What there is now says nothing of what was heard of long ago.
        self.windows().find(|(_, sum)| {
            Some(sum.heard_last) == latest && sum.alarm(now).is_large(sum.bytes_before, 1)
        })
    }

    /// All runs of slots that fit a window, each with its sum.
    fn windows(&self) -> impl Iterator<Item = (Range<usize>, Slot)> + '_ {
        (0..self.slots.len()).map(|from| {
            let begin = self.slots[from].number();
            let fits = |slot: &&Slot| slot.number() - begin < WINDOW_MS / SLOT_MS;
            let run = self.slots[from..].iter().take_while(fits);
            let mut sum = self.slots[from];
            let mut to = from + 1;
            for slot in run.skip(1) {
                sum.add(slot);
                to += 1;
            }
            (from..to, sum)
        })
    }

    /// Puts alarms together that have grown into one another, or are too many.
    fn join_alarms(&mut self) {
        self.alarms.sort_by_key(|alarm| alarm.begin);
        let mut joined: Vec<Alarm> = Vec::new();
        for alarm in core::mem::take(&mut self.alarms) {
            match joined.last_mut() {
                Some(last) if last.reaches(alarm.begin) => last.join(&alarm),
                _ => joined.push(alarm),
            }
        }
        while joined.len() > ALARMS_MAX {
            let second = joined.remove(1);
            joined[0].join(&second);
        }
        self.alarms = joined;
    }

    /// Notes that a person meant everything that the writer did up to a time. Answers whether that
    /// is news.
    pub fn mean(&mut self, upto: Hlc) -> bool {
        if upto <= self.meant {
            return false;
        }
        self.meant = upto;
        self.alarms.retain(|alarm| alarm.end > upto);
        self.slots.retain(|slot| slot.last > upto.0);
        true
    }

    /// The alarms that nobody has said were meant, the earliest first.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// From when on nothing that was replaced or removed is let go: for alarms, and for what may
    /// become one.
    #[must_use]
    pub fn held_since(&self, now: WallMs) -> Option<WallMs> {
        let alarms = self.alarms.iter().map(Alarm::held_since);
        let suspects = self.windows().filter(|(_, sum)| {
            // As if all of it were gone for good.
            sum.heard_last.saturating_add(SUSPECT_MS) >= now.0
                && sum.alarm(Extent::default()).is_large(sum.bytes_before, SUSPECT_DIVISOR)
        });
        let suspects = suspects.map(|(_, sum)| Hlc(sum.first).wall().min(WallMs(sum.heard_first)));
        alarms.chain(suspects).min()
    }

    /// As bytes, for a row of this device's index.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let none = Unread::new();
        let mut writer = Writer::new();
        let mut fields = writer.fields(3 + usize::from(self.device.is_some()), &none);
        fields.optional(1, self.device.as_ref(), |writer, device| writer.text(device));
        fields.field(2, |writer| writer.uint(self.meant.0));
        fields.field(3, |writer| {
            writer.array(self.slots.len());
            self.slots.iter().for_each(|slot| write_numbers(writer, &slot.numbers()));
        });
        fields.field(4, |writer| {
            writer.array(self.alarms.len());
            self.alarms.iter().for_each(|alarm| write_numbers(writer, &alarm.numbers()));
        });
        fields.end();
        writer.into_bytes()
    }

    /// Reads what [`encode`](Watch::encode) wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Watch, DecodeError> {
        decode_whole(bytes, |decoder| {
            let mut watch = Watch::default();
            read_fields(decoder, "a watch", |number, decoder| {
                match number {
                    1 => watch.device = Some(read_author(decoder)?),
                    2 => watch.meant = Hlc(decoder.u64()?),
                    3 => {
                        for _ in 0..read_array(decoder, "a watch's slots", SLOTS_MAX)? {
                            watch.slots.push(Slot::of(read_numbers(decoder)?));
                        }
                    }
                    4 => {
                        for _ in 0..read_array(decoder, "a watch's alarms", ALARMS_MAX)? {
                            watch.alarms.push(Alarm::of(read_numbers(decoder)?));
                        }
                    }
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(watch)
        })
    }
}

impl Slot {
    fn numbers(&self) -> [u64; 11] {
        [
            self.first,
            self.last,
            self.heard_first,
            self.heard_last,
            self.removed,
            self.young,
            self.overwritten,
            self.bytes,
            self.young_bytes,
            self.files_before,
            self.bytes_before,
        ]
    }

    fn of(numbers: [u64; 11]) -> Self {
        let [first, last, heard_first, heard_last, removed, young, overwritten, ..] = numbers;
        let [.., bytes, young_bytes, files_before, bytes_before] = numbers;
        Slot {
            first,
            last,
            heard_first,
            heard_last,
            removed,
            young,
            overwritten,
            bytes,
            young_bytes,
            files_before,
            bytes_before,
        }
    }
}

impl Alarm {
    fn numbers(&self) -> [u64; 7] {
        let Alarm { begin, end, heard, removed, overwritten, bytes, files } = *self;
        [begin.0, end.0, heard.0, removed, overwritten, bytes, files]
    }

    fn of([begin, end, heard, removed, overwritten, bytes, files]: [u64; 7]) -> Self {
        let (begin, end, heard) = (Hlc(begin), Hlc(end), WallMs(heard));
        Alarm { begin, end, heard, removed, overwritten, bytes, files }
    }
}

fn write_numbers(writer: &mut Writer, numbers: &[u64]) {
    writer.array(numbers.len());
    numbers.iter().for_each(|number| writer.uint(*number));
}

fn read_numbers<const N: usize>(decoder: &mut Decoder<'_>) -> Result<[u64; N], DecodeError> {
    read_tuple(decoder, "numbers of a watch", N)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = decoder.u64()?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests;
