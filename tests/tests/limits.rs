//! What is at the edge of what a share is made for: clocks that are years off, many devices, names
//! that look alike, long names, thousands of conflicts at once. The limits are in `docs/sync.md`.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::clock::{DRIFT_MAX_MS, Hlc, WallMs};
use kith_core::exchange::Session;
use kith_core::id::{Cursor, DeviceId, InodeId, Reached, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Register};
use kith_core::name::EntryName;
use kith_core::operation::{Context, Operation, RenameMode, apply};
use kith_core::receive::receive;
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_core::wire;
use kith_store::{Founding, NodeRead, Store, StoreError};
use kith_tests::counted_index::CountedIndex;
use kith_tests::replicas::{Replica, World, content, name};

const ROOT: InodeId = InodeId::ROOT;
/// 2023-11-14.
const NOW: u64 = 1_700_000_000_000;
const YEAR_MS: u64 = 31_557_600_000;

fn id(replica: &Replica, at: &str) -> InodeId {
    replica.index.shown(ROOT, &name(at)).unwrap().expect("the name is shown").node.key()
}

#[test]
fn a_clock_that_is_years_off_locks_nobody_out() {
    let wrong =
        [0, NOW - 30 * YEAR_MS, NOW + 5 * YEAR_MS, NOW + 4000 * YEAR_MS, u64::MAX - 1_000_000];
    for off in wrong {
        let mut world = World::new(3);
        world.replicas[0].write(ROOT, "a", 1);
        world.replicas[0].write(ROOT, "b", 1);
        world.heal();
        world.replicas[1].now = off;
        let file = id(&world.replicas[1], "a");
        world.replicas[1].edit(file, 2);
        world.replicas[1].rename((ROOT, "b"), (ROOT, "c"));
        world.heal();
        assert_eq!(world.replicas[0].lines(), ["a=2", "c=1"], "{off}: who saw is followed");
        for (at, bytes) in [(0, 3), (2, 4), (1, 5), (2, 6)] {
            world.replicas[at].edit(file, bytes);
            let moved = if bytes % 2 == 0 { ("b", "c") } else { ("c", "b") };
            world.replicas[at].rename((ROOT, moved.0), (ROOT, moved.1));
            world.heal();
            let then = [format!("a={bytes}"), format!("{}=1", moved.1)];
            assert_eq!(world.replicas[1].lines(), then, "{off}: the last edit is the file");
        }
        // Nobody's clock is carried along for more than a few minutes.
        for replica in [&world.replicas[0], &world.replicas[2]] {
            let hlc = replica.index.state().unwrap().hlc;
            assert!(hlc <= Hlc::at(WallMs(replica.now + DRIFT_MAX_MS)), "{off}: {hlc:?}");
        }
        // Once the clock is right again, and others have been heard, it orders as all do: of two
        // edits at once the later is the file.
        world.replicas[1].now = world.replicas[0].now;
        world.replicas[0].write(ROOT, "d", 7);
        world.heal();
        let file = id(&world.replicas[1], "d");
        world.replicas[1].now = world.replicas[0].now.max(world.replicas[1].now);
        world.replicas[0].now = world.replicas[1].now + 60_000;
        world.replicas[1].edit(file, 8);
        world.replicas[0].edit(file, 9);
        world.heal();
        world.check_healed();
        let lines = world.replicas[2].lines();
        assert!(lines.contains(&"d=9".to_owned()) && lines.len() == 4, "{off}: {lines:?}");
    }
}

#[test]
fn stamps_that_no_honest_device_gives_out_are_left_out() {
    let mut world = World::new(2);
    world.replicas[0].write(ROOT, "a", 1);
    world.heal();
    let mut registers = world.replicas[0].index.registers();
    for register in &mut registers {
        match register {
            Register::Inode(inode) => inode.attributes.stamp.hlc = Hlc(u64::MAX),
            Register::Entry(entry) => entry.place.stamp.hlc = Hlc(u64::MAX),
        }
    }
    world.replicas[1].receive(registers);
    world.replicas[1].rename((ROOT, "a"), (ROOT, "b"));
    world.heal();
    world.check_healed();
    assert_eq!(world.replicas[0].lines(), ["b=1"]);
}

/// Two devices talk over real sessions and frames until neither has anything to say.
fn talk(replicas: &mut [Replica], one: usize, other: usize) {
    let ends = [one, other];
    let mut opened: Vec<(Session, wire::Message)> = Vec::new();
    for at in [0, 1] {
        let peer = replicas[ends[1 - at]].index.state().unwrap().device;
        opened.push(Session::open(&replicas[ends[at]].index, peer).unwrap());
    }
    let (mut sessions, hellos): (Vec<Session>, Vec<_>) = opened.into_iter().unzip();
    for (at, hello) in hellos.into_iter().enumerate() {
        deliver(&mut replicas[ends[1 - at]], &mut sessions[1 - at], &hello);
    }
    loop {
        let mut quiet = true;
        for at in [0, 1] {
            while let Some(message) = sessions[at].next(&replicas[ends[at]].index).unwrap() {
                deliver(&mut replicas[ends[1 - at]], &mut sessions[1 - at], &message);
                quiet = false;
            }
        }
        if quiet {
            return;
        }
    }
}

fn deliver(replica: &mut Replica, session: &mut Session, message: &wire::Message) {
    let frame = wire::encode_frame(message);
    let message = wire::decode(&frame[wire::FRAME_HEAD_BYTES..]).unwrap().expect("it is known");
    replica.now += 10;
    let context = Context { now: WallMs(replica.now), tag: Tag(replica.now) };
    session.receive(&mut replica.index, context, WriterId(0xffff), message).unwrap();
}

/// 64 devices each make a file of one name, and each edits a file that all know.
fn sixty_four() -> Vec<Replica> {
    let mut replicas: Vec<Replica> = (0..64).map(|number| Replica::new(number, NOW)).collect();
    replicas[0].write(ROOT, "shared", 100);
    for at in 1..64 {
        talk(&mut replicas, 0, at);
    }
    for (at, replica) in replicas.iter_mut().enumerate() {
        replica.write(ROOT, "a.txt", at as u8 + 1);
        replica.write(ROOT, &format!("own {at}"), 1);
        let file = id(replica, "shared");
        replica.edit(file, at as u8 + 101);
    }
    replicas
}

fn check_sixty_four(replicas: &[Replica]) {
    let lines = replicas[0].lines();
    for replica in replicas {
        replica.check();
        assert_eq!(replica.lines(), lines);
    }
    let of = |prefix: &str| lines.iter().filter(|line| line.starts_with(prefix)).count();
    assert_eq!((of("a"), of("own "), of("shared")), (64, 64, 64), "{lines:?}");
}

#[test]
fn sixty_four_devices_around_one_end_up_with_the_same_tree() {
    let mut replicas = sixty_four();
    for _ in 0..2 {
        for at in 1..64 {
            talk(&mut replicas, 0, at);
        }
    }
    check_sixty_four(&replicas);
}

#[test]
fn sixty_four_devices_in_a_ring_end_up_with_the_same_tree() {
    let mut replicas = sixty_four();
    for _ in 0..2 {
        for at in 0..64 {
            talk(&mut replicas, at, (at + 1) % 64);
        }
    }
    check_sixty_four(&replicas);
}

/// Pairs that look alike: of another case, of another Unicode normal form, of bytes that are none.
const ALIKE: [&[u8]; 7] =
    [b"name", b"Name", b"NAME", b"\xc3\xa9", b"e\xcc\x81", b"\xe9", b"\xc5\xbf"];

#[test]
fn names_that_look_alike_are_others_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let open = |number: u8| {
        let founding = Founding {
            share: ShareId([7; 16]),
            device: DeviceId([number; 32]),
            writer: WriterId(u64::from(number)),
            author: format!("device {number}"),
            now: WallMs(NOW),
            tag: Tag(u64::from(number)),
        };
        Store::open(&directory.path().join(number.to_string()), &founding).unwrap()
    };
    let (one, other) = (open(1), open(2));
    for (at, bytes) in ALIKE.iter().enumerate() {
        let (user, group) = (Owner::Person, Owner::Person);
        let context = Context { now: WallMs(NOW + at as u64), tag: Tag(at as u64) };
        let kind = Kind::Directory;
        let name = EntryName::new(bytes).unwrap();
        let create = Operation::Create { parent: ROOT, name, kind, mode: 0o755, user, group };
        one.write(|tx| {
            apply(tx, context, create).map_err(|error| match error {
                kith_core::operation::OperationError::Storage(error) => error,
                refused => panic!("{refused}"),
            })
        })
        .unwrap();
    }
    let registers = one.snapshot().unwrap().changes_after(0, 100).unwrap();
    let registers: Vec<Register> = registers.into_iter().map(|(_, register)| register).collect();
    let upto = Reached::all(Cursor { writer: WriterId(1), number: 9, tag: Tag(1) });
    let frame = wire::encode_frame(&wire::Message::Batch { after: 0, registers, upto });
    let message = wire::decode(&frame[wire::FRAME_HEAD_BYTES..]).unwrap();
    let Some(wire::Message::Batch { registers, .. }) = message else { panic!("{message:?}") };
    let context = Context { now: WallMs(NOW), tag: Tag(99) };
    other.write(|tx| receive(tx, context, registers)).unwrap();
    for store in [one, other] {
        let snapshot = store.snapshot().unwrap();
        let listed = snapshot.list(ROOT, None, 100).unwrap();
        let mut listed: Vec<&[u8]> = listed.iter().map(|row| row.name.as_bytes()).collect();
        let mut alike = ALIKE.to_vec();
        alike.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, alike);
        for bytes in ALIKE {
            let found: Result<_, StoreError> =
                snapshot.look_up(ROOT, &EntryName::new(bytes).unwrap());
            assert_eq!(found.unwrap().unwrap().0.name.as_bytes(), bytes);
        }
        store.close();
    }
}

#[test]
fn the_longest_names_have_room_for_what_tells_them_apart() {
    for long in ["é".repeat(127), "x".repeat(251) + ".txt", "名".repeat(85), "y".repeat(255)] {
        let mut world = World::new(4);
        world.replicas[0].write(ROOT, &long, 1);
        world.heal();
        for (at, replica) in world.replicas.iter_mut().enumerate() {
            let file = id(replica, &long);
            replica.edit(file, at as u8 + 2);
            replica.rename((ROOT, &long), (ROOT, "b"));
            replica.write(ROOT, &long, at as u8 + 20);
        }
        world.heal();
        world.check_healed();
        let names = world.replicas[0].index.list(ROOT, None, 100).unwrap();
        assert_eq!(names.len(), 8, "{:?}", world.replicas[0].lines());
        for row in names {
            assert!(row.name.as_bytes().len() <= 255);
            assert!(core::str::from_utf8(row.name.as_bytes()).is_ok(), "{}", row.name);
        }
    }
}

/// A device that holds files of these many names, as if it had made them.
fn device_with(number: u64, names: impl Iterator<Item = EntryName>) -> CountedIndex {
    let mut index = CountedIndex::new(Replica::new(number, NOW).index);
    for (at, name) in names.enumerate() {
        let mut context = Context { now: WallMs(NOW + at as u64), tag: Tag(2 * at as u64 + 1) };
        let (user, group, kind) = (Owner::Person, Owner::Person, Kind::File);
        let create = Operation::Create { parent: ROOT, name, kind, mode: 0o644, user, group };
        let inode = apply(&mut index, context, create).unwrap().node.unwrap().key();
        context.tag.0 += 1;
        let mut bytes = content(1 + number as u8);
        bytes.size_bytes += at as u64;
        let kith_core::content::Layout::Inline(pieces) = &mut bytes.layout else { continue };
        pieces.push(kith_core::content::Piece::Hole { len_bytes: at as u64 + 1 });
        let publish = Operation::Publish {
            inode,
            context: VersionVector::new(),
            parents: Vec::new(),
            content: bytes,
            mtime: UnixTime::default(),
            mark: Mark::Closed,
        };
        apply(&mut index, context, publish).unwrap();
    }
    index
}

/// Takes in registers in batches as sessions make them, and answers how many rows that took.
fn taken(index: &mut CountedIndex, registers: &[Register]) -> u64 {
    let before = index.rows();
    for (at, batch) in registers.chunks(512).enumerate() {
        let context = Context { now: WallMs(NOW + 10_000_000), tag: Tag(1 << 40 | at as u64) };
        receive(index, context, batch.to_vec()).unwrap();
    }
    index.rows() - before
}

#[test]
fn thousands_of_names_in_conflict_cost_as_much_each_as_a_few_do() {
    let cost = |count: u64| {
        let names = || (0..count).map(|at| name(&format!("file {at}.txt")));
        let (one, mut other) = (device_with(0, names()), device_with(1, names()));
        let rows = taken(&mut other, &one.index.registers());
        assert_eq!(other.index.list(ROOT, None, usize::MAX).unwrap().len() as u64, 2 * count);
        // Somebody clears them away.
        let before = other.rows();
        for row in other.index.list(ROOT, None, usize::MAX).unwrap() {
            let context =
                Context { now: WallMs(NOW + 20_000_000), tag: Tag(other.rows() | 1 << 50) };
            let (parent, directory) = (ROOT, false);
            let remove = Operation::Remove { parent, name: row.name, directory };
            apply(&mut other, context, remove).unwrap();
        }
        assert_eq!(other.index.view().count(), 0);
        (rows / count, (other.rows() - before) / count)
    };
    let (few, many) = (cost(100), cost(10_000));
    println!("rows for each name in conflict, taken in and removed: {few:?}, of 10,000 {many:?}");
    assert!(many.0 <= few.0 * 2 && many.1 <= few.1 * 2, "{few:?} and {many:?}");
}

#[test]
fn thousands_who_want_one_name_cost_as_much_each_as_a_few_do() {
    let cost = |count: u64| {
        let made = device_with(0, (0..count).map(|at| name(&format!("{at}"))));
        let mut registers = made.index.registers();
        for register in &mut registers {
            if let Register::Entry(entry) = register {
                entry.place.name = name("a.txt");
                entry.place.author = "far".to_owned();
            }
        }
        let mut index = CountedIndex::new(Replica::new(1, NOW).index);
        let context = Context { now: WallMs(NOW + 10_000_000), tag: Tag(1) };
        receive(&mut index, context, registers).unwrap();
        assert_eq!(index.index.list(ROOT, None, usize::MAX).unwrap().len() as u64, count);
        let received = index.rows();
        // The first change of one of them makes all ordinary, each under its number.
        let context = Context { now: WallMs(NOW + 20_000_000), tag: Tag(2) };
        let (from, to) = ((ROOT, name("a (far) 7.txt")), (ROOT, name("b")));
        let rename = Operation::Rename { from, to, mode: RenameMode::NoReplace };
        apply(&mut index, context, rename).unwrap();
        assert_eq!(index.index.view().filter(|row| row.repaired).count(), 0);
        (received / count, (index.rows() - received) / count)
    };
    let (few, many) = (cost(100), cost(10_000));
    println!("rows for each of those who want a name, taken in and settled: {few:?}, {many:?}");
    assert!(many.0 <= few.0 * 2 && many.1 <= few.1 * 2, "{few:?} and {many:?}");
}

#[test]
fn a_store_of_many_entries_is_made_opened_listed_and_exchanged() {
    // As `scale` does with millions.
    let directory = tempfile::tempdir().unwrap();
    let measured = kith_tests::scale::measure(directory.path(), 2500);
    assert_eq!(measured.entries, 2503);
}
