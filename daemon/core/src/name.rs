//! The name of an entry: any bytes that a directory can hold.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The longest name, in bytes, as on every Linux filesystem.
pub const NAME_MAX_BYTES: usize = 255;

/// What a labelled name leaves free for a space and ten digits.
const ROOM_FOR_ORDINAL: usize = 11;

/// One name in a directory: 1 to 255 bytes, without `/` and NUL, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Box<[u8]>);

/// Why some bytes are not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There are no bytes.
    #[error("a name can't be empty")]
    Empty,
    /// More than [`NAME_MAX_BYTES`].
    #[error("a name has at most 255 bytes")]
    TooLong,
    /// A `/` or a NUL, or one of the two names that every directory has.
    #[error("a name holds neither '/' nor NUL, and is neither '.' nor '..'")]
    Reserved,
}

impl EntryName {
    /// Parses `bytes` as a name.
    ///
    /// # Errors
    /// A [`NameError`] that says which rule the bytes break.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            [b'.'] | [b'.', b'.'] => Err(NameError::Reserved),
            _ if bytes.len() > NAME_MAX_BYTES => Err(NameError::TooLong),
            _ if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(NameError::Reserved),
            _ => Ok(EntryName(bytes.into())),
        }
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name with ` (label)` before its extension, as views show what stands beside another,
    /// and the `ordinal` after it if that is 2 or more.
    ///
    /// The stem is cut so that the result keeps within 244 bytes before the ordinal and 255 with
    /// it, at a character's border where the name is UTF-8. An extension is what follows the last
    /// dot, if that is neither the first byte nor more than 32 bytes from the end, and has neither
    /// a space nor a `)`: so an ordinal's place can be told from the name alone.
    #[must_use]
    pub fn labelled(&self, label: &str, ordinal: u32) -> EntryName {
        let bytes = self.as_bytes();
        let dot = bytes.iter().rposition(|byte| *byte == b'.');
        let dot = dot.filter(|at| *at > 0 && bytes.len() - at <= 32);
        let dot = dot.filter(|at| !bytes[*at..].iter().any(|byte| matches!(byte, b' ' | b')')));
        let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
        // `/` and NUL can't stand in a name; a label is a device's name and a time.
        let label: String =
            label.chars().map(|c| if matches!(c, '/' | '\0') { '_' } else { c }).collect();
        let mut label = label.as_str();
        while label.len() > 120 {
            let mut cut = 120;
            while !label.is_char_boundary(cut) {
                cut -= 1;
            }
            label = &label[..cut];
        }
        let room = NAME_MAX_BYTES - ROOM_FOR_ORDINAL - extension.len() - label.len() - 3;
        let mut cut = stem.len().min(room);
        if cut < stem.len() {
            // 0b10xx_xxxx continues a UTF-8 character.
            let border = (cut.saturating_sub(3)..=cut).rev().find(|at| stem[*at] & 0xc0 != 0x80);
            cut = border.filter(|at| *at > 0).unwrap_or(cut);
        }
        let mut name: Vec<u8> = stem[..cut].to_vec();
        name.extend_from_slice(b" (");
        name.extend_from_slice(label.as_bytes());
        name.push(b')');
        name.extend_from_slice(extension);
        let name = EntryName::new(&name).expect("a label has no reserved byte and was cut to fit");
        if ordinal >= 2 { name.numbered(ordinal) } else { name }
    }

    /// A [`labelled`](Self::labelled) name with an ordinal after its label. Of any other name it
    /// is what that becomes with the ordinal at its end, cut to fit.
    #[must_use]
    pub fn numbered(&self, ordinal: u32) -> EntryName {
        let bytes = self.as_bytes();
        let at = bytes.iter().rposition(|byte| *byte == b')').map_or(bytes.len(), |at| at + 1);
        let number = alloc::format!(" {ordinal}");
        let (before, after) = bytes.split_at(at);
        let room = NAME_MAX_BYTES.saturating_sub(number.len() + after.len());
        let before = &before[..before.len().min(room)];
        let name = [before, number.as_bytes(), after].concat();
        EntryName::new(&name[..name.len().min(NAME_MAX_BYTES)])
            .expect("an ordinal has no reserved byte and was given room")
    }

    /// The labelled name that this one is with an ordinal after the label, if it has that form.
    #[must_use]
    pub fn unnumbered(&self) -> Option<EntryName> {
        let bytes = self.as_bytes();
        let space = bytes.iter().rposition(|byte| *byte == b' ')?;
        let (before, number) = (&bytes[..space], &bytes[space + 1..]);
        let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, after) = number.split_at(digits);
        let is_ordinal = !number.is_empty() && number[0] != b'0' && number != b"1";
        let is_extension = after.first().is_none_or(|byte| *byte == b'.') && !after.contains(&b')');
        if before.last() != Some(&b')') || !is_ordinal || !is_extension {
            return None;
        }
        EntryName::new(&[before, after].concat()).ok()
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn what_no_directory_can_hold_is_no_name() {
        let long = vec![b'x'; 256];
        let cases: [(&[u8], NameError); 6] = [
            (b"", NameError::Empty),
            (b".", NameError::Reserved),
            (b"..", NameError::Reserved),
            (b"a/b", NameError::Reserved),
            (b"a\0b", NameError::Reserved),
            (&long, NameError::TooLong),
        ];
        for (bytes, error) in cases {
            assert_eq!(EntryName::new(bytes), Err(error), "{bytes:?}");
        }
        assert!(EntryName::new(b"\xff\xfe").is_ok());
        assert!(EntryName::new(&long[1..]).is_ok());
    }

    #[test]
    fn a_label_stands_before_the_extension() {
        let cases = [
            ("a.txt", 1, "a (desk).txt"),
            ("a.txt", 2, "a (desk) 2.txt"),
            ("a", 1, "a (desk)"),
            (".bashrc", 1, ".bashrc (desk)"),
            ("a.tar.gz", 3, "a.tar (desk) 3.gz"),
            ("no. 5", 2, "no. 5 (desk) 2"),
        ];
        for (name, ordinal, expected) in cases {
            let name = EntryName::new(name.as_bytes()).unwrap();
            let labelled = name.labelled("desk", ordinal);
            assert_eq!(labelled.to_string(), expected);
            let plainly = name.labelled("desk", 1);
            assert_eq!(labelled.unnumbered(), (ordinal > 1).then_some(plainly));
        }
        for other in ["a", "a 2", "a (desk) 1", "a (desk) 02", "a (desk) 2)", "a (desk) 2 .txt"] {
            assert_eq!(EntryName::new(other.as_bytes()).unwrap().unnumbered(), None, "{other}");
        }
    }

    #[test]
    fn a_label_never_makes_a_name_too_long() {
        for (stem, label) in
            [("é".repeat(127), "d".repeat(300)), ("x".repeat(255), "laptop".into())]
        {
            let name = EntryName::new(stem.as_bytes()).unwrap().labelled(&label, 4_000_000_000);
            assert!(name.as_bytes().len() <= NAME_MAX_BYTES);
            assert!(core::str::from_utf8(name.as_bytes()).is_ok());
        }
    }
}
