//! POSIX access control lists, as the kernel hands them over in extended attributes.
//!
//! The kernel checks them; keeping a list, the mode, and what a directory's children inherit in
//! step with one another is left to the filesystem. Numbers in a stored list are owners as
//! elsewhere: the share's person has one that means whoever mounts the share.

use super::attributes::Ownership;
use fuser::{Errno, Request};
use kith_core::register::Owner;
use std::ffi::OsStr;

/// The list that says who may do what with a node.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// The list that what is made in a directory begins with.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const USER_OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OWNER: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// What stands for the share's person in a stored list. The last number but one is nobody's.
const PERSON: u32 = u32::MAX - 1;

/// Whether an attribute is one of the two lists.
pub(super) fn is_list(name: &OsStr) -> bool {
    name == ACCESS || name == DEFAULT
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    rights: u16,
    id: u32,
}

/// One list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct List(Vec<Entry>);

impl List {
    /// Reads a list.
    pub(super) fn decode(value: &[u8]) -> Result<List, Errno> {
        let (version, entries) = value.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let entries = entries.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
            tag: u16::from_le_bytes([entry[0], entry[1]]),
            rights: u16::from_le_bytes([entry[2], entry[3]]) & 0o7,
            id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
        });
        Ok(List(entries.collect()))
    }

    /// Writes a list.
    pub(super) fn encode(&self) -> Box<[u8]> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.rights.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value.into()
    }

    /// The list as it is kept: with owners in place of this device's numbers.
    pub(super) fn recorded(&self, ownership: Ownership) -> List {
        let kept = |owner| match owner {
            Owner::Person => PERSON,
            Owner::Number(number) => number,
        };
        self.with_numbers(|user| kept(ownership.user(user)), |group| kept(ownership.group(group)))
    }

    /// The kept list as it is shown here.
    pub(super) fn shown(&self, ownership: Ownership) -> List {
        let owner = |id| if id == PERSON { Owner::Person } else { Owner::Number(id) };
        self.with_numbers(
            |user| ownership.shown_user(owner(user)),
            |group| ownership.shown_group(owner(group)),
        )
    }

    fn with_numbers(&self, user: impl Fn(u32) -> u32, group: impl Fn(u32) -> u32) -> List {
        let entries = self.0.iter().map(|entry| Entry {
            id: match entry.tag {
                USER => user(entry.id),
                GROUP => group(entry.id),
                _ => entry.id,
            },
            ..*entry
        });
        List(entries.collect())
    }

    /// Whether it says no more than a mode can.
    pub(super) fn is_plain(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OWNER | GROUP_OWNER | OTHERS))
    }

    /// Which entry a mode's three bits for the group stand for.
    fn group_class(&self) -> u16 {
        if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OWNER }
    }

    /// How far the bits of a mode are to the left for an entry; `None` if it has none there.
    fn shift(tag: u16, group_class: u16) -> Option<u16> {
        match tag {
            USER_OWNER => Some(6),
            OTHERS => Some(0),
            tag if tag == group_class => Some(3),
            _ => None,
        }
    }

    /// The nine bits that a mode has where this list is.
    pub(super) fn mode(&self) -> u16 {
        let group_class = self.group_class();
        self.0.iter().fold(0, |mode, entry| {
            mode | List::shift(entry.tag, group_class).map_or(0, |shift| entry.rights << shift)
        })
    }

    /// The list after `chmod`.
    pub(super) fn with_mode(&self, mode: u16) -> List {
        let group_class = self.group_class();
        let entries = self.0.iter().map(|entry| match List::shift(entry.tag, group_class) {
            Some(shift) => Entry { rights: (mode >> shift) & 0o7, ..*entry },
            None => *entry,
        });
        List(entries.collect())
    }

    /// What is made with a mode in a directory that this is the default list of: its list.
    pub(super) fn inherited(&self, mode: u16) -> List {
        self.with_mode(self.mode() & mode)
    }
}

/// Whether who asks is of a group, or may do without: only they keep a set-group-id bit.
pub(super) fn is_member(request: &Request, group: u32) -> bool {
    if request.uid() == 0 || request.gid() == group {
        return true;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", request.pid()));
    status.is_ok_and(|status| {
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
        let wanted = group.to_string();
        groups.is_some_and(|groups| groups.split_whitespace().any(|listed| listed == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u32 = u32::MAX;

    fn list(entries: &[(u16, u16, u32)]) -> List {
        List(entries.iter().map(|&(tag, rights, id)| Entry { tag, rights, id }).collect())
    }

    fn shared() -> List {
        list(&[
            (USER_OWNER, 7, NOBODY),
            (USER, 6, 1000),
            (USER, 4, 7),
            (GROUP_OWNER, 5, NOBODY),
            (MASK, 6, NOBODY),
            (OTHERS, 1, NOBODY),
        ])
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_anything_else_is_refused() {
        let list = shared();
        assert_eq!(List::decode(&list.encode()).ok(), Some(list.clone()));
        for bad in [&b""[..], &[2, 0, 0], &[1, 0, 0, 0], &list.encode()[..list.encode().len() - 1]]
        {
            assert!(List::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mode_and_a_list_say_the_same() {
        assert_eq!(shared().mode(), 0o761);
        assert!(!shared().is_plain());
        let narrower = shared().with_mode(0o4610);
        assert_eq!(narrower.mode(), 0o610);
        assert_eq!(narrower.0[1], shared().0[1], "who is named keeps what the mask lets through");
        assert_eq!(narrower.0[3], shared().0[3]);
        let plain = list(&[(USER_OWNER, 6, NOBODY), (GROUP_OWNER, 4, NOBODY), (OTHERS, 4, NOBODY)]);
        assert!(plain.is_plain());
        assert_eq!(plain.with_mode(0o751).mode(), 0o751);
    }

    #[test]
    fn what_is_made_in_a_directory_gets_its_list_but_no_more_than_was_asked_for() {
        assert_eq!(shared().inherited(0o666).mode(), 0o660);
        assert_eq!(shared().inherited(0o755).mode(), 0o741);
        assert_eq!(shared().inherited(0o777), shared());
    }

    #[test]
    fn the_person_is_another_number_elsewhere() {
        let here = Ownership { user: 1000, group: 100 };
        let there = Ownership { user: 501, group: 20 };
        let kept = shared().recorded(here);
        assert_eq!((kept.0[1].id, kept.0[2].id), (PERSON, 7));
        assert_eq!(kept.shown(here), shared());
        let shown = kept.shown(there);
        assert_eq!((shown.0[1].id, shown.0[2].id, shown.0[0].id), (501, 7, NOBODY));
    }
}
