//! What transactions and snapshots both read, by the same statements.

use crate::node::{NodeRead, NodeRow};
use crate::{Snapshot, StoreError, Totals, Transaction};
use kith_core::forget::{Hearsay, Page, PageId};
use kith_core::id::{DeviceId, EntryId, InodeId, Reached, Tag};
use kith_core::index::{
    CloneSigns, EntryState, FormerWriter, IndexRead, InodeState, Named, Register, ReplicaState,
    Shown, Stranger,
};
use kith_core::name::EntryName;
use kith_core::vector::VersionVector;

impl Snapshot {
    fn own_state(&self) -> Result<ReplicaState, StoreError> {
        self.handle().read_state()?.ok_or(StoreError::Damaged("the replica has no state"))
    }

    fn own_totals(&self) -> Result<Totals, StoreError> {
        self.handle().read_totals()
    }
}

macro_rules! forward {
    ($($(#[$doc:meta])* fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $result:ty;)*) => {$(
        fn $name(&self $(, $arg: $type)*) -> Result<$result, StoreError> {
            self.handle().$name($($arg),*)
        }
    )*};
}

macro_rules! reads {
    ($reader:ty) => {
        impl IndexRead for $reader {
            type Error = StoreError;

            fn state(&self) -> Result<ReplicaState, StoreError> {
                self.own_state()
            }

            forward! {
                fn tag(&self, number: u64) -> Option<Tag>;
                fn reached(&self, device: DeviceId) -> Option<Reached>;
                fn former_writers(&self) -> Vec<FormerWriter>;
                fn strangers(&self) -> Vec<Stranger>;
                fn named(&self, device: DeviceId) -> Option<Named>;
                fn clone_signs(&self) -> Option<CloneSigns>;
                fn changes_after(&self, after: u64, limit: usize) -> Vec<(u64, Register)>;
                fn inode(&self, id: InodeId) -> Option<InodeState>;
                fn entry(&self, id: EntryId) -> Option<EntryState>;
                fn entries_of(&self, inode: InodeId) -> Vec<EntryState>;
                fn entries_at(&self, shown_parent: InodeId, name: &EntryName) -> Vec<EntryState>;
                fn entries_in(&self, shown_parent: InodeId) -> Vec<EntryState>;
                fn removed_after(
                    &self,
                    after: Option<EntryId>,
                    limit: usize
                ) -> Vec<EntryState>;
                fn forgets(&self) -> bool;
                fn forgotten(&self, id: PageId) -> Option<Page>;
                fn forgotten_after(&self, after: u64, limit: usize) -> Vec<(u64, Page)>;
                fn inodes_on(&self, page: PageId) -> Vec<InodeId>;
                fn entries_on(&self, page: PageId) -> Vec<EntryId>;
                fn stated(&self, device: DeviceId) -> Option<VersionVector>;
                fn hearsay(&self) -> Vec<Hearsay>;
                fn any_present_in(&self, shown_parent: InodeId) -> bool;
                fn names_present_in(&self, shown_parent: InodeId) -> Vec<EntryName>;
                fn waiting_for(&self, file: InodeId) -> Vec<EntryState>;
                fn representative(&self, directory: InodeId) -> InodeId;
                fn members(&self, representative: InodeId) -> Vec<InodeId>;
                fn shown(&self, parent: InodeId, name: &EntryName) -> Option<Shown>;
                fn shown_from(&self, parent: InodeId, base: &EntryName) -> Vec<Shown>;
                fn shown_wanting(&self, parent: InodeId, wanted: &EntryName) -> Vec<Shown>;
                fn shown_of(&self, key: InodeId) -> Vec<Shown>;
                fn list(
                    &self,
                    parent: InodeId,
                    after: Option<&EntryName>,
                    limit: usize
                ) -> Vec<Shown>;
            }
        }

        impl NodeRead for $reader {
            forward! {
                fn node(&self, ino: u64) -> Option<NodeRow>;
                fn node_of(&self, key: InodeId) -> Option<NodeRow>;
                fn look_up(
                    &self,
                    parent: InodeId,
                    name: &EntryName
                ) -> Option<(Shown, NodeRow, InodeState)>;
                fn list_nodes(
                    &self,
                    parent: InodeId,
                    after: Option<&EntryName>,
                    limit: usize
                ) -> Vec<(Shown, NodeRow, InodeState)>;
                fn links(&self, key: InodeId) -> u32;
                fn directory_links(&self, key: InodeId) -> u32;
                fn subdirectories(&self, parent: InodeId) -> u32;
            }

            fn totals(&self) -> Result<Totals, StoreError> {
                self.own_totals()
            }
        }
    };
}

reads!(Snapshot);
reads!(Transaction<'_>);
