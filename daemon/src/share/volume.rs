//! The share as the filesystem's port: each call goes to the part that does it.

use super::{Share, now};
use kith_core::clock::WallMs;
use kith_core::name::EntryName;
use kith_core::register::UnixTime;
use kith_fs::volume::{
    Access, Allocation, ChangeError, FileError, Handle, Ino, Listed, LookupError, NewNode,
    NodeChange, NodeInfo, Outdated, Renaming, Room, Sought, StorageError, Volume, XattrError,
    XattrMode,
};
use std::time::Duration;

impl Volume for Share {
    fn lookup(&self, parent: Ino, name: &EntryName) -> Result<NodeInfo, LookupError> {
        self.look_up_name(parent, name)
    }
    fn parent(&self, directory: Ino) -> Result<Ino, LookupError> {
        self.parent_of(directory)
    }
    fn place(&self, directory: Ino) -> Result<Option<(Ino, EntryName)>, LookupError> {
        self.place_of(directory)
    }
    fn info(&self, node: Ino) -> Result<NodeInfo, LookupError> {
        self.info_of(node)
    }
    fn list(
        &self,
        directory: Ino,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Listed>, LookupError> {
        self.list_names(directory, after, limit)
    }
    fn read_link(&self, node: Ino) -> Result<Box<[u8]>, LookupError> {
        self.link_target(node)
    }
    fn make(&self, parent: Ino, name: &EntryName, new: NewNode) -> Result<NodeInfo, ChangeError> {
        self.make_node(parent, name, new)
    }
    fn create(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewNode,
        access: Access,
    ) -> Result<(NodeInfo, Handle), ChangeError> {
        self.create_file(parent, name, new, access)
    }
    fn link(&self, node: Ino, parent: Ino, name: &EntryName) -> Result<NodeInfo, ChangeError> {
        self.link_node(node, parent, name)
    }
    fn unlink(&self, parent: Ino, name: &EntryName) -> Result<(), ChangeError> {
        self.remove_name(parent, name, false)
    }
    fn remove_directory(&self, parent: Ino, name: &EntryName) -> Result<(), ChangeError> {
        self.remove_name(parent, name, true)
    }
    fn rename(
        &self,
        from: (Ino, &EntryName),
        to: (Ino, &EntryName),
        renaming: Renaming,
    ) -> Result<(), ChangeError> {
        self.rename_name(from, to, renaming)
    }
    fn change(&self, node: Ino, change: NodeChange) -> Result<NodeInfo, ChangeError> {
        self.change_node(node, &change)
    }
    fn xattr(&self, node: Ino, name: &[u8]) -> Result<Box<[u8]>, XattrError> {
        self.xattrs_of(node)?.remove(name).ok_or(XattrError::NoAttribute)
    }
    fn xattrs(&self, node: Ino) -> Result<Vec<Box<[u8]>>, XattrError> {
        Ok(self.xattrs_of(node)?.into_keys().collect())
    }
    fn set_xattr(
        &self,
        node: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), XattrError> {
        self.put_xattr(node, name, Some((value, mode)))
    }
    fn remove_xattr(&self, node: Ino, name: &[u8]) -> Result<(), XattrError> {
        self.put_xattr(node, name, None)
    }
    fn open(&self, node: Ino, access: Access) -> Result<Handle, FileError> {
        self.open_file(node, access)
    }
    fn read_here(
        &self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, FileError> {
        self.read_present(handle, offset, len)
    }
    fn read(&self, handle: Handle, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
        self.read_fetching(handle, offset, len)
    }
    fn write(&self, handle: Handle, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.write_bytes(handle, offset, bytes)
    }
    fn fsync(&self, handle: Handle) -> Result<(), FileError> {
        self.sync_file(handle)
    }
    fn closing(&self, handle: Handle) {
        self.note_closing(handle);
    }
    fn sync_names(&self) -> Result<(), StorageError> {
        self.store.sync().map_err(|error| super::storage(&error))
    }
    fn release(&self, handle: Handle) {
        self.release_file(handle);
    }
    fn allocate(
        &self,
        handle: Handle,
        offset: u64,
        len: u64,
        allocation: Allocation,
    ) -> Result<(), FileError> {
        self.allocate_range(handle, offset, len, allocation)
    }
    fn seek(&self, handle: Handle, offset: u64, sought: Sought) -> Result<u64, FileError> {
        self.seek_in(handle, offset, sought)
    }
    fn copy_range(
        &self,
        from: (Handle, u64),
        to: (Handle, u64),
        len: u64,
    ) -> Result<u64, FileError> {
        self.copy_bytes(from, to, len)
    }
    fn room(&self) -> Result<Room, StorageError> {
        self.disk_room().map(super::names::shown_room)
    }
    fn outdated(&self, patience: Duration) -> Option<Vec<Outdated>> {
        self.outdated.next(patience)
    }
    fn now(&self) -> (WallMs, UnixTime) {
        now()
    }
}
