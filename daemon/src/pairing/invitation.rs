//! The one invitation that is open at a time: who may guess its code, how often and how long.

use kith_core::clock::WallMs;
use kith_core::id::DeviceId;
use tokio::sync::mpsc;

use super::code::Code;

/// How long an invitation is open, in milliseconds.
pub const OPEN_MS: u64 = 10 * 60 * 1000;
/// Wrong guesses after which a code is burned.
pub const GUESSES: u8 = 3;
/// Events that wait for whoever made the invitation: more can't happen to one.
const EVENTS_MAX: usize = 8;

/// What happens to an invitation. After any but [`InviteEvent::WrongCode`] it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteEvent {
    /// Somebody gave a wrong code.
    WrongCode {
        /// Wrong guesses until the code is burned.
        left: u8,
    },
    /// A device has joined.
    Joined {
        /// Which.
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// A device had the code, and still didn't join.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// The code was guessed wrong too often.
    Burned,
    /// Nobody came in time.
    Expired,
    /// A newer invitation took its place, or it was withdrawn.
    Withdrawn,
}

impl InviteEvent {
    /// Whether nothing more can happen to the invitation.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, InviteEvent::WrongCode { .. })
    }
}

/// An invitation as its maker holds it.
#[derive(Debug)]
pub struct Invitation {
    /// The code, to be told to whoever is to join.
    pub code: String,
    /// When it expires: milliseconds since 1970.
    pub expires_ms: u64,
    /// What happens to it.
    pub outcome: mpsc::Receiver<InviteEvent>,
}

/// Why a guess is not even looked at. How the last invitation ended is told for as long as one is
/// open: whoever was invited wants to know, and strangers learn no more than they must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No invitation is open.
    None,
    /// One is open, with another number.
    OtherNumber,
    /// The last one has expired.
    Expired,
    /// The last one was burned.
    Burned,
}

/// What a guess turned out to be.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The code was right. The invitation is closed; its maker waits for the outcome.
    Right(mpsc::Sender<InviteEvent>),
    /// The code was wrong, and may be guessed so many times more: 0 means that it is burned now.
    Wrong { left: u8 },
    /// Meanwhile the invitation was closed.
    Refused(Refusal),
}

#[derive(Debug)]
struct Open {
    /// Tells invitations apart: a guess counts for the one it was begun with.
    serial: u64,
    code: Code,
    expires: WallMs,
    left: u8,
    events: mpsc::Sender<InviteEvent>,
}

/// The open invitation, if there is one, and how the last one ended.
#[derive(Debug)]
pub(crate) struct Invitations {
    open: Option<Open>,
    last: Refusal,
    /// Until when that is told.
    told_until: WallMs,
    serial: u64,
}

/// A guess that was begun.
#[derive(Debug)]
pub(crate) struct Guess {
    serial: u64,
    pub(crate) code: Code,
}

impl Invitations {
    pub(crate) fn new() -> Invitations {
        Invitations { open: None, last: Refusal::None, told_until: WallMs(0), serial: 0 }
    }

    /// Opens an invitation with `code`. One that was open before is withdrawn.
    pub(crate) fn open(&mut self, code: Code, now: WallMs) -> (u64, Invitation) {
        self.close(Refusal::None, InviteEvent::Withdrawn);
        let (events, outcome) = mpsc::channel(EVENTS_MAX);
        let expires = WallMs(now.0.saturating_add(OPEN_MS));
        let invitation = Invitation { code: code.to_string(), expires_ms: expires.0, outcome };
        self.serial += 1;
        self.open = Some(Open { serial: self.serial, code, expires, left: GUESSES, events });
        (self.serial, invitation)
    }

    /// Whether an invitation is open at `now`.
    pub(crate) fn is_open(&mut self, now: WallMs) -> bool {
        self.expire(now);
        self.open.is_some()
    }

    /// Closes the invitation if its time is over. Says when it will be, if it is still open.
    pub(crate) fn expire(&mut self, now: WallMs) -> Option<WallMs> {
        if now >= self.told_until {
            self.last = Refusal::None;
        }
        let expires = self.open.as_ref()?.expires;
        if now < expires {
            return Some(expires);
        }
        self.told_until = WallMs(now.0.saturating_add(OPEN_MS));
        self.close(Refusal::Expired, InviteEvent::Expired);
        None
    }

    /// Withdraws the invitation `serial`, or whichever is open.
    pub(crate) fn withdraw(&mut self, serial: Option<u64>) -> bool {
        let matching =
            self.open.as_ref().is_some_and(|open| serial.is_none_or(|s| s == open.serial));
        if matching {
            self.close(Refusal::None, InviteEvent::Withdrawn);
        }
        matching
    }

    fn close(&mut self, last: Refusal, event: InviteEvent) {
        if let Some(open) = self.open.take() {
            self.last = last;
            // Whoever made it may have gone.
            let _ = open.events.try_send(event);
        }
    }

    /// Why nobody may guess, or `None` if an invitation is open.
    pub(crate) fn refusal(&mut self, now: WallMs) -> Option<Refusal> {
        self.expire(now);
        if self.open.is_some() { None } else { Some(self.last) }
    }

    /// Begins a guess at the invitation with the number `nameplate`.
    pub(crate) fn begin(&mut self, nameplate: u8, now: WallMs) -> Result<Guess, Refusal> {
        self.expire(now);
        let open = self.open.as_ref().ok_or(self.last)?;
        if open.code.nameplate() != nameplate {
            return Err(Refusal::OtherNumber);
        }
        Ok(Guess { serial: open.serial, code: open.code.clone() })
    }

    /// Ends a guess, in time or not.
    pub(crate) fn end(&mut self, guess: &Guess, right: bool, now: WallMs) -> Verdict {
        self.expire(now);
        let Some(open) = self.open.as_mut().filter(|open| open.serial == guess.serial) else {
            return Verdict::Refused(self.last);
        };
        if right {
            let events = open.events.clone();
            self.open = None;
            self.last = Refusal::None;
            return Verdict::Right(events);
        }
        open.left -= 1;
        let left = open.left;
        let _ = open.events.try_send(InviteEvent::WrongCode { left });
        if left == 0 {
            self.told_until = WallMs(now.0.saturating_add(OPEN_MS));
            self.close(Refusal::Burned, InviteEvent::Burned);
        }
        Verdict::Wrong { left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMs = WallMs(1_000_000);

    fn code() -> Code {
        "7-mango-elephant".parse().unwrap()
    }

    #[test]
    fn a_code_is_burned_by_three_wrong_guesses() {
        let mut invitations = Invitations::new();
        let (_, mut made) = invitations.open(code(), NOW);
        for left in [2, 1, 0] {
            let guess = invitations.begin(7, NOW).unwrap();
            let verdict = invitations.end(&guess, false, NOW);
            assert!(matches!(verdict, Verdict::Wrong { left: l } if l == left));
            assert_eq!(made.outcome.try_recv(), Ok(InviteEvent::WrongCode { left }));
        }
        assert_eq!(made.outcome.try_recv(), Ok(InviteEvent::Burned));
        assert_eq!(invitations.begin(7, NOW).unwrap_err(), Refusal::Burned);
        assert!(!invitations.is_open(NOW));
        let later = WallMs(NOW.0 + OPEN_MS);
        assert_eq!(invitations.begin(7, later).unwrap_err(), Refusal::None);
    }

    #[test]
    fn a_guess_that_was_begun_in_time_ends_too_late() {
        let mut invitations = Invitations::new();
        let (_, mut made) = invitations.open(code(), NOW);
        let guess = invitations.begin(7, WallMs(made.expires_ms - 1)).unwrap();
        let late = WallMs(made.expires_ms);
        let verdict = invitations.end(&guess, true, late);
        assert!(matches!(verdict, Verdict::Refused(Refusal::Expired)), "{verdict:?}");
        assert_eq!(made.outcome.try_recv(), Ok(InviteEvent::Expired));
        assert_eq!(invitations.begin(7, late).unwrap_err(), Refusal::Expired);
    }

    #[test]
    fn a_code_is_good_for_one_device() {
        let mut invitations = Invitations::new();
        let _made = invitations.open(code(), NOW);
        let (one, two) = (invitations.begin(7, NOW).unwrap(), invitations.begin(7, NOW).unwrap());
        assert!(matches!(invitations.end(&one, true, NOW), Verdict::Right(_)));
        let verdict = invitations.end(&two, true, NOW);
        assert!(matches!(verdict, Verdict::Refused(Refusal::None)), "{verdict:?}");
    }

    #[test]
    fn another_number_is_no_guess() {
        let mut invitations = Invitations::new();
        let _made = invitations.open(code(), NOW);
        for _ in 0..10 {
            assert_eq!(invitations.begin(8, NOW).unwrap_err(), Refusal::OtherNumber);
        }
        assert!(invitations.is_open(NOW));
    }

    #[test]
    fn a_newer_invitation_takes_the_place_of_the_old_one() {
        let mut invitations = Invitations::new();
        let (first, mut old) = invitations.open(code(), NOW);
        let guess = invitations.begin(7, NOW).unwrap();
        let (second, _new) = invitations.open(code(), NOW);
        assert_eq!(old.outcome.try_recv(), Ok(InviteEvent::Withdrawn));
        assert!(matches!(invitations.end(&guess, true, NOW), Verdict::Refused(_)));
        assert!(!invitations.withdraw(Some(first)) && invitations.is_open(NOW));
        assert!(invitations.withdraw(Some(second)) && !invitations.is_open(NOW));
    }
}
