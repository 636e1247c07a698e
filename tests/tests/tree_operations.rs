//! What operations do and refuse, and what of them other devices hear of.

use kith_core::effect::Effect;
use kith_core::id::{Dot, InodeId};
use kith_core::index::IndexRead;
use kith_core::operation::{Operation, OperationError, RenameMode};
use kith_core::register::Kind;
use kith_core::vector::VersionVector;
use kith_tests::replicas::{Replica, World, name};

const ROOT: InodeId = InodeId::ROOT;

fn id(replica: &Replica, path: &str) -> InodeId {
    path.split('/').fold(ROOT, |parent, part| {
        replica.index.shown(parent, &name(part)).unwrap().expect("the name is shown").node.key()
    })
}

fn mkdir(replica: &mut Replica, path: &str) {
    let (parent, last) =
        path.rsplit_once('/').map_or((ROOT, path), |(parent, last)| (id(replica, parent), last));
    replica.create(parent, last, Kind::Directory);
}

fn both_know(given: fn(&mut Replica)) -> World {
    let mut world = World::new(2);
    given(&mut world.replicas[0]);
    let registers = world.replicas[0].index.registers();
    world.replicas[1].receive(registers);
    world
}

#[test]
fn a_union_moves_and_goes_as_one() {
    let mut world = both_know(|_| {});
    for (replica, file) in world.replicas.iter_mut().zip(["x", "y"]) {
        mkdir(replica, "d");
        replica.write(id(replica, "d"), file, 1);
    }
    world.heal();
    world.replicas[0].rename((ROOT, "d"), (ROOT, "e"));
    world.heal();
    assert_eq!(world.replicas[1].lines(), ["e/", "e/x=1", "e/y=1"]);
    let union = id(&world.replicas[1], "e");
    world.replicas[1].remove(union, "x");
    world.replicas[1].remove(union, "y");
    world.replicas[1].remove(ROOT, "e");
    world.heal();
    world.check_healed();
    assert!(world.replicas[0].lines().is_empty());
}

#[test]
fn a_file_is_seen_elsewhere_once_it_has_a_version() {
    let mut world = both_know(|it| it.write(ROOT, "a", 1));
    let send = |world: &mut World| {
        let registers = world.replicas[0].index.registers();
        world.replicas[1].receive(registers);
        world.replicas[1].check();
        world.replicas[1].lines()
    };
    let file = world.replicas[0].create(ROOT, "a~", Kind::File);
    world.replicas[0].rename((ROOT, "a~"), (ROOT, "a"));
    assert_eq!(world.replicas[0].lines(), ["a=?"]);
    assert_eq!(send(&mut world), ["a=1"], "the name that it takes over is kept until then");
    world.replicas[0].publish(file, VersionVector::new(), 2).unwrap();
    assert_eq!(send(&mut world), ["a=2"]);
    // One that never gets a version takes what it replaced with it, and is gone.
    let file = world.replicas[0].create(ROOT, "b", Kind::File);
    world.replicas[0].rename((ROOT, "b"), (ROOT, "a"));
    world.replicas[0].remove(ROOT, "a");
    world.replicas[0].apply(Operation::Abandon { inode: file }).unwrap();
    world.replicas[0].check();
    assert_eq!(world.replicas[0].index.inode(file), Ok(None));
    assert!(send(&mut world).is_empty());
}

#[test]
fn a_directory_with_many_files_moves_by_one_write() {
    let mut replica = Replica::new(0, 1_700_000_000_000);
    mkdir(&mut replica, "d");
    mkdir(&mut replica, "e");
    let directory = id(&replica, "d");
    for number in 0..100 {
        replica.write(directory, &format!("{number}"), 1);
    }
    let before = replica.index.state().unwrap().number;
    let to = (id(&replica, "e"), name("d"));
    let rename = Operation::Rename { from: (ROOT, name("d")), to, mode: RenameMode::Replace };
    let effects = replica.apply(rename).unwrap().effects;
    replica.check();
    assert_eq!(replica.index.changes_after(before, 10).unwrap().len(), 1);
    assert_eq!(effects.len(), 2, "{effects:?}");
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Name { .. })));
}

#[test]
fn settling_a_copy_makes_the_same_file_on_both_devices() {
    let mut world = both_know(|it| it.write(ROOT, "a", 1));
    let file = id(&world.replicas[0], "a");
    world.replicas[0].edit(file, 2);
    world.replicas[1].edit(file, 3);
    world.heal();
    let before = world.replicas[0].lines();
    assert_eq!(before.len(), 2);
    for replica in &mut world.replicas {
        let copy = replica.index.view().find(|row| row.wanted.is_some()).unwrap().node;
        let node = replica.apply(Operation::Settle { node: copy }).unwrap().node.unwrap();
        assert_eq!(node.key(), copy.key());
        assert_eq!(replica.lines(), before);
        assert_eq!(replica.index.view().filter(|row| row.repaired).count(), 0);
    }
    world.heal();
    world.check_healed();
    assert_eq!(world.replicas[0].lines(), before);
}

#[test]
fn saving_on_does_not_swallow_what_arrived_meanwhile() {
    let mut world = both_know(|it| it.write(ROOT, "a", 1));
    let file = id(&world.replicas[0], "a");
    let opened = world.replicas[0].shown_context(file);
    world.replicas[1].edit(file, 3);
    let registers = world.replicas[1].index.registers();
    world.replicas[0].receive(registers);
    assert_eq!(world.replicas[0].lines(), ["a=3"]);
    world.replicas[0].publish(file, opened.clone(), 2).unwrap();
    let mine = world.replicas[0].shown_context(file);
    assert_eq!(world.replicas[0].lines().len(), 2);
    world.replicas[0].publish(file, mine, 4).unwrap();
    let lines = world.replicas[0].lines();
    assert!(lines.contains(&"a=4".to_owned()) && lines.len() == 2, "{lines:?}");
    // Even from a base that is too old: this device's own version goes beside.
    world.replicas[0].publish(file, opened, 5).unwrap();
    assert_eq!(world.replicas[0].lines().len(), 3);
    world.heal();
    world.check_healed();
    assert_eq!(world.replicas[1].lines().len(), 3);
}

#[test]
fn operations_are_refused_as_posix_has_it() {
    let mut replica = Replica::new(0, 1_700_000_000_000);
    mkdir(&mut replica, "d");
    mkdir(&mut replica, "d/e");
    mkdir(&mut replica, "empty");
    replica.write(ROOT, "a", 1);
    let d = id(&replica, "d");
    let e = id(&replica, "d/e");
    let a = replica.index.shown(ROOT, &name("a")).unwrap().unwrap().node;
    let dir = replica.index.shown(ROOT, &name("d")).unwrap().unwrap().node;
    replica.apply(Operation::Link { node: a, parent: ROOT, name: name("b") }).unwrap();
    let gone = InodeId(Dot { number: 999, ..d.0 });
    let rename = |from: &str, to: (InodeId, &str), mode| Operation::Rename {
        from: (ROOT, name(from)),
        to: (to.0, name(to.1)),
        mode,
    };
    let remove = |parent, at, directory| Operation::Remove { parent, name: name(at), directory };
    use OperationError as No;
    use RenameMode::{Exchange, NoReplace, Replace};
    let cases = [
        (remove(ROOT, "x", false), Some(No::NotFound)),
        (remove(gone, "x", false), Some(No::NotFound)),
        (remove(a.key(), "x", false), Some(No::NotDirectory)),
        (remove(ROOT, "a", true), Some(No::NotDirectory)),
        (remove(ROOT, "d", false), Some(No::IsDirectory)),
        (remove(ROOT, "d", true), Some(No::NotEmpty)),
        (rename("x", (ROOT, "y"), Replace), Some(No::NotFound)),
        (rename("a", (ROOT, "d"), NoReplace), Some(No::Exists)),
        (rename("a", (ROOT, "a"), NoReplace), Some(No::Exists)),
        (rename("a", (ROOT, "y"), Exchange), Some(No::NotFound)),
        (rename("a", (ROOT, "d"), Replace), Some(No::IsDirectory)),
        (rename("d", (ROOT, "a"), Replace), Some(No::NotDirectory)),
        (rename("empty", (ROOT, "d"), Replace), Some(No::NotEmpty)),
        (rename("d", (d, "x"), Replace), Some(No::IntoItself)),
        (rename("d", (e, "x"), Replace), Some(No::IntoItself)),
        (rename("d", (d, "e"), Exchange), Some(No::IntoItself)),
        (Operation::Link { node: dir, parent: ROOT, name: name("x") }, Some(No::NotPermitted)),
        (Operation::Link { node: a, parent: ROOT, name: name("d") }, Some(No::Exists)),
        (rename("a", (ROOT, "b"), Replace), None),
        (rename("a", (ROOT, "a"), Replace), None),
        (rename("a", (d, "e"), Exchange), None),
        (rename("d", (ROOT, "empty"), Replace), None),
    ];
    for (operation, refused) in cases {
        let told = format!("{operation:?}");
        assert_eq!(replica.apply(operation).err(), refused, "{told}");
        replica.check();
    }
    assert_eq!(replica.lines(), ["a/", "b=1", "empty/", "empty/e=1"]);
}
