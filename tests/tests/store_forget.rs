//! Forgetting in a store on disk: the registers go, the ids stay, and another device hears of them.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use kith_core::clock::WallMs;
use kith_core::content::Content;
use kith_core::exchange::Session;
use kith_core::forget::{PAGE_IDS, Sweep, renewed, sweep};
use kith_core::id::{DeviceId, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{Context, Operation, OperationError, apply};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_store::{Founding, NodeRead, Store, StoreError};

const NOW: WallMs = WallMs(1_795_651_200_000);
const CONTEXT: Context = Context { now: NOW, tag: Tag(2) };
const ROOT: InodeId = InodeId::ROOT;

struct Device {
    directory: tempfile::TempDir,
    number: u8,
    store: Store,
}

impl Device {
    fn open(directory: tempfile::TempDir, number: u8) -> Device {
        let founding = Founding {
            share: ShareId([7; 16]),
            device: DeviceId([number; 32]),
            writer: WriterId(u64::from(number)),
            author: "desk".into(),
            now: NOW,
            tag: Tag(1),
        };
        let store = Store::open(directory.path(), &founding).unwrap();
        Device { directory, number, store }
    }

    fn new(number: u8) -> Device {
        Device::open(tempfile::tempdir().unwrap(), number)
    }

    fn again(self) -> Device {
        self.store.close();
        drop(self.store);
        Device::open(self.directory, self.number)
    }

    fn does(&self, operation: Operation) -> Option<InodeId> {
        let applied = self.store.write(|tx| apply(tx, CONTEXT, operation));
        applied.map_err(|error: OperationError<StoreError>| error).unwrap().node.map(Node::key)
    }

    fn makes(&self, parent: InodeId, at: &str, kind: Kind) -> InodeId {
        let (user, group) = (Owner::Person, Owner::Person);
        let name = name(at);
        let is_file = kind == Kind::File;
        let create = Operation::Create { parent, name, kind, mode: 0o644, user, group };
        let inode = self.does(create).unwrap();
        if is_file {
            self.saves(inode);
        }
        inode
    }

    fn saves(&self, inode: InodeId) {
        let state = self.store.snapshot().unwrap().inode(inode).unwrap().unwrap();
        let context: VersionVector = state.inode.known_versions();
        let parents = state.inode.versions.keys().copied().collect();
        let (content, mtime, mark) = (Content::empty(), UnixTime::default(), Mark::Closed);
        self.does(Operation::Publish { inode, context, parents, content, mtime, mark });
    }

    fn removes(&self, parent: InodeId, at: &str, directory: bool) {
        self.does(Operation::Remove { parent, name: name(at), directory });
    }

    fn forgets(&self, members: &[DeviceId]) -> usize {
        let (mut forgotten, mut after) = (0, None);
        loop {
            let before = WallMs(u64::MAX);
            let slice = Sweep { members, before, in_use: &|_| false, after, limit: 2 };
            let swept = self.store.write(|tx| sweep(tx, CONTEXT, &slice)).unwrap();
            forgotten += swept.forgotten;
            after = swept.after;
            if after.is_none() {
                return forgotten;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let shown = self.store.snapshot().unwrap().list(ROOT, None, 99).unwrap();
        shown.iter().map(|row| row.name.to_string()).collect()
    }
}

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

fn talk(one: &Device, other: &Device) {
    let ends = [one, other];
    let open = |from: usize| {
        let peer = DeviceId([ends[1 - from].number; 32]);
        Session::open(&ends[from].store.snapshot().unwrap(), peer).unwrap()
    };
    let ((first, to_second), (second, to_first)) = (open(0), open(1));
    let mut sessions = [first, second];
    let mut under_way = vec![(1, to_second), (0, to_first)];
    while !under_way.is_empty() {
        for (to, message) in std::mem::take(&mut under_way) {
            let store = &ends[to].store;
            let session = &mut sessions[to];
            store.write(|tx| session.receive(tx, CONTEXT, WriterId(0xdead), message)).unwrap();
        }
        for from in [0, 1] {
            let snapshot = ends[from].store.snapshot().unwrap();
            let next = sessions[from].next(&snapshot).unwrap();
            under_way.extend(next.map(|message| (1 - from, message)));
        }
    }
}

#[test]
fn what_is_forgotten_leaves_its_ids_alone_on_disk() {
    let desk = Device::new(1);
    let directory = desk.makes(ROOT, "d", Kind::Directory);
    let files: Vec<InodeId> =
        (0..9).map(|n| desk.makes(directory, &format!("f{n}"), Kind::File)).collect();
    let kept = desk.makes(ROOT, "kept", Kind::File);
    (0..9).for_each(|n| desk.removes(directory, &format!("f{n}"), false));
    desk.removes(ROOT, "d", true);
    assert_eq!(desk.forgets(&[DeviceId([9; 32])]), 0, "the other was never heard of");
    let mut forgotten = 0;
    while let more @ 1.. = desk.forgets(&[]) {
        forgotten += more;
    }
    assert_eq!(forgotten, 20);
    let desk = desk.again();
    let snapshot = desk.store.snapshot().unwrap();
    for id in files.iter().chain([&directory]) {
        assert!(snapshot.is_forgotten_inode(*id).unwrap());
        assert_eq!(snapshot.inode(*id).unwrap(), None);
        assert_eq!(snapshot.entries_of(*id).unwrap(), []);
        assert_eq!(snapshot.node_of(*id).unwrap(), None);
    }
    assert!(!snapshot.is_forgotten_inode(kept).unwrap());
    assert_eq!(snapshot.removed_after(None, 99).unwrap(), []);
    let pages = snapshot.forgotten_after(0, 99).unwrap();
    let numbers = desk.store.snapshot().unwrap().state().unwrap().number;
    assert!(pages.len() as u64 <= 2 * (numbers / PAGE_IDS + 1), "{pages:?}");
    assert_eq!(pages.iter().map(|(_, page)| page.len()).sum::<usize>(), 20);
    assert_eq!(desk.names(), ["kept"]);
}

#[test]
fn who_still_has_it_hears_of_it_and_keeps_what_it_changed() {
    let (desk, lap) = (Device::new(1), Device::new(2));
    let gone = desk.makes(ROOT, "gone", Kind::File);
    let edited = desk.makes(ROOT, "edited", Kind::File);
    talk(&desk, &lap);
    assert_eq!(lap.names(), ["edited", "gone"]);
    desk.removes(ROOT, "gone", false);
    desk.removes(ROOT, "edited", false);
    assert_eq!(desk.forgets(&[DeviceId([2; 32])]), 0, "it isn't known to know");
    assert_eq!(desk.forgets(&[]), 4);
    lap.saves(edited);
    talk(&desk, &lap);
    for device in [&desk, &lap] {
        assert_eq!(device.names(), ["edited"]);
        let snapshot = device.store.snapshot().unwrap();
        let shown = snapshot.shown(ROOT, &name("edited")).unwrap().unwrap();
        assert_eq!(shown.node.key(), InodeId(renewed(edited.0)));
        let (_, node, _) = snapshot.look_up(ROOT, &name("edited")).unwrap().unwrap();
        assert!(node.current);
        assert!(snapshot.is_forgotten_inode(gone).unwrap());
    }
    assert!(
        lap.store.snapshot().unwrap().inode(gone).unwrap().is_some(),
        "its own time isn't over"
    );
    assert_eq!(lap.forgets(&[DeviceId([1; 32])]), 4);
    assert_eq!(lap.store.snapshot().unwrap().inode(gone).unwrap(), None);
}

#[test]
fn what_was_heard_from_one_that_knew_more_is_kept_until_this_device_knows_it_too() {
    let (desk, lap) = (Device::new(1), Device::new(2));
    let gone = desk.makes(ROOT, "gone", Kind::File);
    desk.removes(ROOT, "gone", false);
    assert_eq!(desk.forgets(&[]), 2);
    let heard = |lap: &Device| lap.store.snapshot().unwrap().hearsay().unwrap();
    // The connection breaks once that is told.
    let begin = |from: &Device, to: u8| {
        Session::open(&from.store.snapshot().unwrap(), DeviceId([to; 32])).unwrap()
    };
    let ((mut there, hello), (mut here, answer)) = (begin(&desk, 2), begin(&lap, 1));
    desk.store.write(|tx| there.receive(tx, CONTEXT, WriterId(0xdead), answer)).unwrap();
    let told = there.next(&desk.store.snapshot().unwrap()).unwrap().unwrap();
    for message in [hello, told] {
        lap.store.write(|tx| here.receive(tx, CONTEXT, WriterId(0xdead), message)).unwrap();
    }
    let before = heard(&lap);
    let lap = lap.again();
    assert_eq!(heard(&lap), before);
    let [one] = &before[..] else { panic!("{before:?}") };
    assert!(one.known.covers(gone.0));
    assert_eq!(one.pages.values().map(kith_core::forget::Page::len).sum::<usize>(), 2);
    talk(&desk, &lap);
    assert_eq!(heard(&lap), []);
    assert_eq!(heard(&lap.again()), []);
}
