//! Signed statements: the values of which a circle's list is made.

use std::fmt;
use std::net::SocketAddr;

use kith_core::id::DeviceId;
use minicbor::{Decode, Encode};

use crate::identity::{Identity, PublicKey};

/// What is put in front of a statement's bytes before they are signed, so that no other signature
/// of a device can be taken for one.
const PURPOSE: &[u8] = b"kith circle statement 1\0";

/// The longest statement, in bytes.
pub const STATEMENT_MAX: usize = 1024;
/// The longest device name, in bytes.
pub const NAME_MAX: usize = 64;
/// The most addresses that one device states.
pub const ADDRESSES_MAX: usize = 8;
/// Stamps from here on are refused: milliseconds far beyond any clock, below any overflow.
const STAMP_END: u64 = 1 << 60;

/// The identity of a circle, drawn at random by whoever founds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CircleId(pub [u8; 16]);

/// What a device is in its circle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// A device like any other.
    #[default]
    Full,
    /// A role that this version of Kith doesn't know, kept and passed on.
    Other(u8),
}

impl Role {
    /// The role as it is encoded.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Role::Full => 0,
            Role::Other(number) => number,
        }
    }

    /// The role that `number` stands for.
    #[must_use]
    pub fn from_number(number: u8) -> Role {
        if number == 0 { Role::Full } else { Role::Other(number) }
    }
}

/// What a statement says of its subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It belongs to the circle.
    Addition,
    /// It doesn't any more, for ever.
    Removal,
    /// It is called so.
    Label {
        /// The name that people see.
        name: String,
        /// What it is in the circle.
        role: Role,
    },
    /// It listens there. Only the device itself says so.
    Addresses(Vec<SocketAddr>),
}

/// A statement as it is signed. The fields that a claim doesn't use are absent.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[cbor(n(0), with = "minicbor::bytes")]
    circle: [u8; 16],
    #[n(1)]
    stamp: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    subject: [u8; 32],
    #[n(3)]
    kind: u8,
    #[n(4)]
    name: Option<String>,
    #[n(5)]
    role: Option<u8>,
    #[n(6)]
    addresses: Option<Vec<String>>,
}

/// A statement with its signature, as it is stored and sent. Its bytes are kept as they came: what
/// a newer version of Kith adds is passed on unread, with a signature that still fits.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Signed {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signer: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    signature: [u8; 64],
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes by {:?})", self.body.len(), PublicKey(self.signer))
    }
}

/// A statement whose signature and form have been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Whom it is about.
    pub subject: PublicKey,
    /// Who says so.
    pub signer: PublicKey,
    /// Milliseconds since 1970 by the signer's clock, or just after what it had seen.
    pub stamp: u64,
    /// What is said.
    pub claim: Claim,
    /// The statement as it was signed.
    pub signed: Signed,
}

impl Statement {
    /// Signs a claim.
    ///
    /// # Panics
    /// If the claim is beyond the bounds, which callers keep.
    #[must_use]
    pub fn sign(
        identity: &Identity,
        circle: CircleId,
        subject: PublicKey,
        stamp: u64,
        claim: Claim,
    ) -> Statement {
        let mut body = Body {
            circle: circle.0,
            stamp,
            subject: subject.0,
            kind: 0,
            name: None,
            role: None,
            addresses: None,
        };
        match &claim {
            Claim::Addition => body.kind = 1,
            Claim::Removal => body.kind = 2,
            Claim::Label { name, role } => {
                body.kind = 3;
                body.name = Some(name.clone());
                body.role = Some(role.number());
            }
            Claim::Addresses(addresses) => {
                body.kind = 4;
                body.addresses = Some(addresses.iter().map(ToString::to_string).collect());
            }
        }
        let body = minicbor::to_vec(&body).expect("a vector takes every byte");
        assert!(body.len() <= STATEMENT_MAX, "a statement is beyond its bounds");
        let signature = identity.sign(&[PURPOSE, &body].concat());
        let signer = identity.public();
        let signed = Signed { body, signer: signer.0, signature };
        Statement { subject, signer, stamp, claim, signed }
    }

    /// Checks a statement that came from elsewhere. `None`: a kind this version doesn't know.
    ///
    /// # Errors
    /// What is wrong with it. Nothing of it may be used then.
    pub fn verify(signed: Signed, circle: CircleId) -> Result<Option<Statement>, StatementError> {
        if signed.body.len() > STATEMENT_MAX {
            return Err(StatementError::TooLong);
        }
        let signer = PublicKey(signed.signer);
        if !signer.verifies(&[PURPOSE, &signed.body].concat(), &signed.signature) {
            return Err(StatementError::Signature(signer.device()));
        }
        let mut decoder = minicbor::Decoder::new(&signed.body);
        let body: Body = decoder.decode().map_err(|_| StatementError::Malformed)?;
        if decoder.position() != signed.body.len() || body.stamp >= STAMP_END {
            return Err(StatementError::Malformed);
        }
        if body.circle != circle.0 {
            return Err(StatementError::OtherCircle);
        }
        let subject = PublicKey(body.subject);
        let claim = match body.kind {
            1 => Claim::Addition,
            2 => Claim::Removal,
            3 => {
                let name = body.name.ok_or(StatementError::Malformed)?;
                if !is_name(&name) {
                    return Err(StatementError::Malformed);
                }
                Claim::Label { name, role: Role::from_number(body.role.unwrap_or(0)) }
            }
            4 => {
                let texts = body.addresses.ok_or(StatementError::Malformed)?;
                if texts.len() > ADDRESSES_MAX || subject != signer {
                    return Err(StatementError::Malformed);
                }
                let addresses: Result<Vec<SocketAddr>, _> =
                    texts.iter().map(|text| text.parse()).collect();
                Claim::Addresses(addresses.map_err(|_| StatementError::Malformed)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(Statement { subject, signer, stamp: body.stamp, claim, signed }))
    }

    /// Whether this one is to be kept rather than `other`, of which both say the same kind of
    /// thing of the same subject. A total order, so that all devices keep the same one.
    #[must_use]
    pub fn supersedes(&self, other: &Statement) -> bool {
        (self.stamp, &self.signed.body, self.signer)
            > (other.stamp, &other.signed.body, other.signer)
    }
}

/// Whether `name` can be a device's name: something to see, on one line, and not too long.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.trim().is_empty()
        && name.len() <= NAME_MAX
        && !name.chars().any(|c| c.is_control() || c == '/')
}

/// The nearest text to `name` that can be a device's name.
#[must_use]
pub fn to_name(name: &str) -> String {
    let mut clean = String::new();
    for c in name.trim().chars().map(|c| if c.is_control() || c == '/' { ' ' } else { c }) {
        if clean.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        clean.push(c);
    }
    let clean = clean.trim();
    if clean.is_empty() { "device".to_owned() } else { clean.to_owned() }
}

/// What is wrong with a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It is beyond the bounds.
    #[error("a statement is too long")]
    TooLong,
    /// It isn't what was signed.
    #[error("a statement's signature is not that of {0}")]
    Signature(DeviceId),
    /// It can't be read.
    #[error("a statement is malformed")]
    Malformed,
    /// It was signed for another circle.
    #[error("a statement belongs to another circle")]
    OtherCircle,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIRCLE: CircleId = CircleId([7; 16]);

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does() {
        let identity = Identity::ephemeral();
        let own = identity.public();
        let claims = [
            Claim::Addition,
            Claim::Removal,
            Claim::Label { name: "läptop".into(), role: Role::Other(3) },
            Claim::Addresses(vec![
                "10.0.0.1:5484".parse().unwrap(),
                "[fe80::1%3]:1".parse().unwrap(),
            ]),
        ];
        for claim in claims {
            let statement = Statement::sign(&identity, CIRCLE, own, 42, claim);
            let signed = statement.signed.clone();
            assert_eq!(Statement::verify(signed.clone(), CIRCLE), Ok(Some(statement)));
            assert_eq!(
                Statement::verify(signed.clone(), CircleId([8; 16])),
                Err(StatementError::OtherCircle)
            );
            for at in 0..signed.body.len() {
                let mut changed = signed.clone();
                changed.body[at] ^= 1;
                assert!(Statement::verify(changed, CIRCLE).is_err());
            }
        }
    }

    #[test]
    fn nobody_states_the_addresses_of_another() {
        let (one, other) = (Identity::ephemeral(), Identity::ephemeral());
        let claim = Claim::Addresses(vec!["10.0.0.1:1".parse().unwrap()]);
        let statement = Statement::sign(&one, CIRCLE, other.public(), 1, claim);
        assert_eq!(Statement::verify(statement.signed, CIRCLE), Err(StatementError::Malformed));
    }

    #[test]
    fn names_are_made_presentable() {
        for (given, made) in [
            ("laptop", "laptop"),
            ("  a/b\n", "a b"),
            ("", "device"),
            ("\u{7}", "device"),
            (&"ü".repeat(100), &"ü".repeat(32)),
        ] {
            assert_eq!(to_name(given), made);
            assert!(is_name(&to_name(given)));
        }
        assert!(!is_name("a\nb") && !is_name(" ") && !is_name(&"x".repeat(65)));
    }
}
