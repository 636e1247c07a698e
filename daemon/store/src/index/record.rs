//! Registers as rows keep them: encoded, less what the row's columns hold.

use crate::StoreError;
use kith_core::codec;
use kith_core::id::{Dot, EntryId, InodeId, WriterId};
use kith_core::name::EntryName;
use kith_core::register::{Entry, Inode};

/// Stands in a record for an id that a column holds: the shortest dot that any id may have.
const ELSEWHERE: Dot = Dot { writer: WriterId(0), number: 1 };

/// What an entry's columns hold of it.
pub(crate) struct EntryColumns {
    pub(crate) id: EntryId,
    pub(crate) inode: InodeId,
    pub(crate) parent: InodeId,
    pub(crate) name: EntryName,
}

/// An inode without its id.
pub(crate) fn write_inode(inode: &Inode) -> Vec<u8> {
    codec::encode_inode(&Inode { id: InodeId(ELSEWHERE), ..inode.clone() })
}

/// The inode of a record.
pub(crate) fn read_inode(id: InodeId, record: &[u8]) -> Result<Inode, StoreError> {
    Ok(Inode { id, ..codec::decode_inode(record)? })
}

/// An entry without its id, inode, parent and name.
pub(crate) fn write_entry(entry: &Entry) -> Vec<u8> {
    let mut rest = entry.clone();
    rest.id = EntryId(ELSEWHERE);
    rest.inode = InodeId(ELSEWHERE);
    rest.place.parent = InodeId(ELSEWHERE);
    rest.place.name = EntryName::new(b"-").expect("a hyphen is a name");
    codec::encode_entry(&rest)
}

/// The entry of a record.
pub(crate) fn read_entry(columns: EntryColumns, record: &[u8]) -> Result<Entry, StoreError> {
    let mut entry = codec::decode_entry(record)?;
    entry.id = columns.id;
    entry.inode = columns.inode;
    entry.place.parent = columns.parent;
    entry.place.name = columns.name;
    Ok(entry)
}

/// The name in a column.
pub(crate) fn name(bytes: &[u8]) -> Result<EntryName, StoreError> {
    EntryName::new(bytes).map_err(|_| StoreError::Damaged("a column holds what is not a name"))
}
