//! The name of an entry: any bytes that a directory can hold.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The longest name, in bytes, as on every Linux filesystem.
pub const NAME_MAX_BYTES: usize = 255;

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
    /// dot, if that is neither the first byte nor more than 32 bytes from the end.
    #[must_use]
    pub fn labelled(&self, label: &str, ordinal: u32) -> EntryName {
        const ROOM_FOR_ORDINAL: usize = 11;
        let bytes = self.as_bytes();
        let dot = bytes.iter().rposition(|byte| *byte == b'.');
        let dot = dot.filter(|at| *at > 0 && bytes.len() - at <= 32).unwrap_or(bytes.len());
        let (stem, extension) = bytes.split_at(dot);
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
        if ordinal >= 2 {
            name.extend_from_slice(alloc::format!(" {ordinal}").as_bytes());
        }
        name.extend_from_slice(extension);
        EntryName::new(&name).expect("a labelled name has no reserved byte and was cut to fit")
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
        ];
        for (name, ordinal, expected) in cases {
            let name = EntryName::new(name.as_bytes()).unwrap();
            assert_eq!(name.labelled("desk", ordinal).to_string(), expected);
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
