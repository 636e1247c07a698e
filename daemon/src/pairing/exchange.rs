//! The messages of pairing, and the key that two devices get from a short code.
//!
//! The joiner opens one stream. SPAKE2 turns the code into a key without showing it to anybody:
//! who doesn't know the code can try one guess by talking to somebody who does, and none alone.
//! The key is bound to both devices' keys and to the TLS session, so that nobody can stand
//! between. The joiner proves first that it has the key, then the inviter; everything after that
//! carries a code of authentication under it as well.

use minicbor::{Decode, Encode};
use spake2::{Ed25519Group, Password, Spake2};
use zeroize::Zeroizing;

use super::code::Code;
use crate::circle::statement::Signed;
use crate::identity::PublicKey;

/// The longest message before the code is confirmed.
pub(crate) const EARLY_MAX: usize = 256;
/// The longest message after that.
pub(crate) const LATE_MAX: usize = 512 << 10;

/// The label under which TLS gives out the secret of its session.
const EXPORTER: &[u8] = b"EXPORTER-kith-pairing-1";

/// The joiner's first message.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Hello {
    /// Which invitation it means.
    #[n(0)]
    pub(crate) nameplate: u8,
    /// Its half of SPAKE2.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) share: Vec<u8>,
}

/// What the inviter answers, twice: with its half, then with its confirmation.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Answer {
    /// Its half of SPAKE2, or its confirmation.
    #[n(0)]
    Go {
        /// Which of them is clear from the order.
        #[cbor(n(0), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// No: see [`No`].
    #[n(1)]
    No {
        /// Why.
        #[n(0)]
        why: u8,
        /// After a wrong guess: how many are left.
        #[n(1)]
        left: u8,
    },
}

/// Why an inviter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum No {
    None = 1,
    OtherNumber = 2,
    Expired = 3,
    Burned = 4,
    Wrong = 5,
    Busy = 6,
}

impl No {
    pub(crate) fn from_number(number: u8) -> Option<No> {
        [No::None, No::OtherNumber, No::Expired, No::Burned, No::Wrong, No::Busy]
            .into_iter()
            .find(|no| *no as u8 == number)
    }
}

/// The joiner's proof that it has the key.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Proof {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) code: [u8; 32],
}

/// A message after both have confirmed, with its code of authentication.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Sealed {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) bytes: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) code: [u8; 32],
}

/// What the joiner says of itself.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Introduction {
    #[n(0)]
    pub(crate) name: String,
}

/// What the inviter gives: its circle, in which the joiner is.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Reception {
    /// Welcome.
    #[n(0)]
    Welcome {
        #[cbor(n(0), with = "minicbor::bytes")]
        circle: [u8; 16],
        #[cbor(n(1), with = "minicbor::bytes")]
        share: [u8; 16],
        #[n(2)]
        share_name: String,
        #[n(3)]
        name: String,
        #[n(4)]
        statements: Vec<Signed>,
    },
    /// It couldn't be done.
    #[n(1)]
    Sorry {
        #[n(0)]
        reason: String,
    },
}

/// The joiner's last word: whether it keeps the circle now.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Farewell {
    /// It does.
    #[n(0)]
    Kept,
    /// It couldn't.
    #[n(1)]
    Sorry {
        #[n(0)]
        reason: String,
    },
}

/// Who is who in a pairing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Joiner,
    Inviter,
}

impl Part {
    fn other(self) -> Part {
        match self {
            Part::Joiner => Part::Inviter,
            Part::Inviter => Part::Joiner,
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Part::Joiner => b"joiner",
            Part::Inviter => b"inviter",
        }
    }
}

/// The two devices of a pairing and the TLS session they talk over.
#[derive(Clone, Debug)]
pub(crate) struct Parties {
    pub(crate) joiner: PublicKey,
    pub(crate) inviter: PublicKey,
    pub(crate) session: [u8; 32],
}

impl Parties {
    /// The parties of `connection`. `None` if its handshake isn't over.
    pub(crate) fn of(
        connection: &quinn::Connection,
        part: Part,
        own: PublicKey,
        other: PublicKey,
    ) -> Option<Parties> {
        let mut session = [0; 32];
        connection.export_keying_material(&mut session, EXPORTER, b"").ok()?;
        let (joiner, inviter) = match part {
            Part::Joiner => (own, other),
            Part::Inviter => (other, own),
        };
        Some(Parties { joiner, inviter, session })
    }
}

/// One side's SPAKE2 before it has the other's half.
pub(crate) struct Start {
    part: Part,
    parties: Parties,
    nameplate: u8,
    spake: Spake2<Ed25519Group>,
    own_half: Vec<u8>,
}

impl Start {
    /// Begins, and gives the half that the other side is to get.
    pub(crate) fn new(part: Part, parties: Parties, code: &Code) -> (Start, Vec<u8>) {
        let password = Password::new(&*code.password());
        let joiner = spake2::Identity::new(&parties.joiner.spki());
        let inviter = spake2::Identity::new(&parties.inviter.spki());
        let (spake, own_half) = match part {
            Part::Joiner => Spake2::start_a(&password, &joiner, &inviter),
            Part::Inviter => Spake2::start_b(&password, &joiner, &inviter),
        };
        let start =
            Start { part, parties, nameplate: code.nameplate(), spake, own_half: own_half.clone() };
        (start, own_half)
    }

    /// Goes on with the other side's half. `None`: it is none.
    pub(crate) fn finish(self, other_half: &[u8]) -> Option<Channel> {
        let secret = Zeroizing::new(self.spake.finish(other_half).ok()?);
        let (joiner_half, inviter_half) = match self.part {
            Part::Joiner => (&self.own_half[..], other_half),
            Part::Inviter => (other_half, &self.own_half[..]),
        };
        // Every part but the halves has a fixed length, and they have passed `finish`: no two
        // transcripts have the same bytes.
        let mut material = Zeroizing::new(Vec::with_capacity(300));
        for part in [
            &secret[..],
            &self.parties.session,
            &self.parties.joiner.spki(),
            &self.parties.inviter.spki(),
            &[self.nameplate],
            joiner_half,
            inviter_half,
        ] {
            material.extend_from_slice(part);
        }
        let key = Zeroizing::new(blake3::derive_key("kith 2026 pairing channel 1", &material));
        Some(Channel { part: self.part, key, sent: 0, received: 0 })
    }
}

/// The key of a pairing, as one side uses it.
pub(crate) struct Channel {
    part: Part,
    key: Zeroizing<[u8; 32]>,
    sent: u64,
    received: u64,
}

impl Channel {
    fn code(&self, by: Part, number: u64, bytes: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(by.label()).update(&number.to_le_bytes()).update(bytes);
        hasher.finalize()
    }

    /// This side's proof that it has the key: message 0.
    pub(crate) fn proof(&mut self) -> [u8; 32] {
        self.sent = 1;
        *self.code(self.part, 0, b"proof").as_bytes()
    }

    /// Whether `proof` is the other side's.
    pub(crate) fn proves(&mut self, proof: &[u8]) -> bool {
        self.received = 1;
        let Ok(proof) = <[u8; 32]>::try_from(proof) else { return false };
        // BLAKE3's hashes compare in constant time.
        self.code(self.part.other(), 0, b"proof") == blake3::Hash::from_bytes(proof)
    }

    /// Adds a code of authentication to a message.
    pub(crate) fn seal<T: Encode<()>>(&mut self, message: &T) -> Sealed {
        let bytes = minicbor::to_vec(message).expect("a vector takes every byte");
        let code = *self.code(self.part, self.sent, &bytes).as_bytes();
        self.sent += 1;
        Sealed { bytes, code }
    }

    /// The message, if it is the next one that the other side sent.
    pub(crate) fn open<T>(&mut self, sealed: &Sealed) -> Option<T>
    where
        T: for<'b> Decode<'b, ()>,
    {
        let code = self.code(self.part.other(), self.received, &sealed.bytes);
        self.received += 1;
        if code != blake3::Hash::from_bytes(sealed.code) {
            return None;
        }
        crate::transport::frame::decode(&sealed.bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn parties() -> Parties {
        let (joiner, inviter) = (Identity::ephemeral(), Identity::ephemeral());
        Parties { joiner: joiner.public(), inviter: inviter.public(), session: [5; 32] }
    }

    /// Runs the exchange as each side sees it.
    fn run(joiner: (Parties, &str), inviter: (Parties, &str)) -> (Channel, Channel) {
        let code = |text: &str| text.parse::<Code>().unwrap();
        let (start_j, half_j) = Start::new(Part::Joiner, joiner.0, &code(joiner.1));
        let (start_i, half_i) = Start::new(Part::Inviter, inviter.0, &code(inviter.1));
        (start_j.finish(&half_i).unwrap(), start_i.finish(&half_j).unwrap())
    }

    fn agree((mut joiner, mut inviter): (Channel, Channel)) -> bool {
        let (a, b) = (joiner.proof(), inviter.proof());
        assert_ne!(a, b);
        let agreed = inviter.proves(&a);
        assert_eq!(agreed, joiner.proves(&b));
        agreed
    }

    #[test]
    fn the_same_code_gives_the_same_key() {
        let both = parties();
        assert!(agree(run((both.clone(), "7-mango-elephant"), (both, "7-mango-elephant"))));
    }

    #[test]
    fn any_difference_in_what_they_see_is_fatal() {
        let both = parties();
        let seen = |change: fn(&mut Parties)| {
            let mut seen = both.clone();
            change(&mut seen);
            seen
        };
        let other = |parties: &mut Parties| parties.inviter = Identity::ephemeral().public();
        let another = |parties: &mut Parties| parties.joiner = Identity::ephemeral().public();
        let swap = |p: &mut Parties| std::mem::swap(&mut p.inviter, &mut p.joiner);
        for (seen, code) in [
            (seen(|_| {}), "7-mango-lemon"),
            (seen(|_| {}), "8-mango-elephant"),
            // Somebody stands between the two, with a TLS session to each.
            (seen(|parties| parties.session[31] ^= 1), "7-mango-elephant"),
            (seen(other), "7-mango-elephant"),
            (seen(another), "7-mango-elephant"),
            (seen(swap), "7-mango-elephant"),
        ] {
            assert!(!agree(run((seen, code), (both.clone(), "7-mango-elephant"))));
        }
    }

    #[test]
    fn a_half_that_is_none_is_refused() {
        let code: Code = "7-mango-elephant".parse().unwrap();
        for half in [&b""[..], b"B", &[0x42; 32], &[0x42; 34], &[0xff; 33], &[0x41; 33]] {
            let (start, _) = Start::new(Part::Joiner, parties(), &code);
            assert!(start.finish(half).is_none());
        }
        // Its own half, reflected, is for the other part.
        let (start, own) = Start::new(Part::Joiner, parties(), &code);
        assert!(start.finish(&own).is_none());
    }

    #[test]
    fn sealed_messages_open_once_in_order_and_in_one_direction() {
        let both = parties();
        let pair = || run((both.clone(), "7-mango-elephant"), (both.clone(), "7-mango-elephant"));
        let (mut joiner, mut inviter) = pair();
        let proof = joiner.proof();
        assert!(inviter.proves(&proof));
        let first = joiner.seal(&Introduction { name: "one".into() });
        let second = joiner.seal(&Introduction { name: "two".into() });
        assert_eq!(inviter.open::<Introduction>(&first).unwrap().name, "one");
        assert!(inviter.open::<Introduction>(&first).is_none());
        let (_, mut inviter) = pair();
        assert!(inviter.open::<Introduction>(&second).is_none());
        assert!(joiner.open::<Introduction>(&first).is_none());
    }
}
