//! Forgetting, case by case: who has to know, and what becomes of what somebody still has.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::forget::{Sweep, renewed, successor, sweep};
use kith_core::id::{DeviceId, InodeId};
use kith_core::index::{IndexRead, Node};
use kith_core::operation::Operation;
use kith_core::register::Kind;
use kith_tests::replicas::{Replica, name};
use kith_tests::village::{device, forget, forget_before, hear_only, settle, talk};

const ROOT: InodeId = InodeId::ROOT;
const START: u64 = 1_700_000_000_000;

/// Three devices that know of everything: the third is about to go away.
fn three(prepare: impl FnOnce(&mut Replica)) -> Vec<Replica> {
    let mut all: Vec<Replica> = (0..3).map(|number| Replica::new(number, START)).collect();
    prepare(&mut all[0]);
    settle(&mut all);
    all
}

fn pair(all: &mut [Replica]) -> (&mut Replica, &mut Replica) {
    let (left, right) = all.split_at_mut(1);
    (&mut left[0], &mut right[0])
}

/// The first two tell each other all, and forget without the third. Answers how many registers of
/// the first went.
fn forget_without_the_third(all: &mut [Replica]) -> usize {
    let (one, other) = pair(all);
    talk(one, other);
    let ids = [device(one), device(other)];
    forget(other, &ids[..1]);
    forget(one, &ids[1..])
}

fn find(replica: &Replica, parent: InodeId, at: &str) -> InodeId {
    replica.index.shown(parent, &name(at)).unwrap().unwrap().node.key()
}

fn objects(replica: &Replica) -> usize {
    replica.index.inodes().count() + replica.index.entries().count()
}

#[test]
fn what_everybody_knows_to_be_removed_is_forgotten_with_all_that_was_in_it() {
    let mut all = three(|one| {
        let directory = one.create(ROOT, "d", Kind::Directory);
        let inner = one.create(directory, "e", Kind::Directory);
        one.write(inner, "a", 1);
        one.write(directory, "b", 2);
        one.remove(inner, "a");
        one.remove(directory, "e");
        one.remove(directory, "b");
        one.remove(ROOT, "d");
    });
    let ids: Vec<DeviceId> = all.iter().map(device).collect();
    for (at, replica) in all.iter_mut().enumerate() {
        let others: Vec<_> = ids.iter().copied().filter(|id| *id != ids[at]).collect();
        let before = objects(replica);
        let mut forgotten = 0;
        // A directory goes after what was in it, wherever their ids are.
        while let more @ 1.. = forget(replica, &others) {
            forgotten += more;
        }
        assert_eq!(forgotten, 8, "two directories and two files, with an entry each");
        assert_eq!(objects(replica), before - 8);
        assert_eq!(objects(replica), 1, "the root");
    }
    settle(&mut all);
    assert!(all.iter().all(|replica| objects(replica) == 1 && replica.lines().is_empty()));
}

#[test]
fn what_one_device_may_not_know_is_kept() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    all[0].remove(ROOT, "a");
    let (one, other) = pair(&mut all);
    talk(one, other);
    let ids: Vec<DeviceId> = all.iter().map(device).collect();
    assert_eq!(forget(&mut all[0], &ids[1..]), 0, "the third hasn't said that it knows");
    assert_eq!(forget(&mut all[0], &[ids[1], DeviceId([99; 32])]), 0, "nor one never heard of");
    assert_eq!(forget_before(&mut all[0], &ids[1..2], kith_core::clock::WallMs(START)), 0, "young");
    let in_use = |_| true;
    let (members, before) = (&ids[1..2], kith_core::clock::WallMs(u64::MAX));
    let slice = Sweep { members, before, in_use: &in_use, after: None, limit: 99 };
    let context = all[0].context();
    assert_eq!(sweep(&mut all[0].index, context, &slice).unwrap().forgotten, 0, "it is open");
    assert_eq!(forget(&mut all[0], &ids[1..2]), 2);
}

#[test]
fn a_device_that_is_alone_needs_nobody() {
    let mut alone = Replica::new(0, START);
    alone.write(ROOT, "a", 1);
    alone.remove(ROOT, "a");
    assert_eq!(forget(&mut alone, &[]), 2);
}

/// What the others do while the third is away, what it does, and what all show when it is back.
type Case =
    (&'static str, fn(&mut Replica), fn(&mut Replica), fn(&mut Replica), &'static [&'static str]);

const CASES: &[Case] = &[
    ("a file", |one| one.write(ROOT, "a", 1), |one| one.remove(ROOT, "a"), |_| {}, &[]),
    (
        "a file that was edited",
        |one| one.write(ROOT, "a", 1),
        |one| one.remove(ROOT, "a"),
        |away| away.edit(find(away, ROOT, "a"), 2),
        &["a=2"],
    ),
    (
        "a file that was renamed",
        |one| one.write(ROOT, "a", 1),
        |one| one.remove(ROOT, "a"),
        |away| away.rename((ROOT, "a"), (ROOT, "b")),
        &["b=1"],
    ),
    (
        "a file that was removed there too",
        |one| one.write(ROOT, "a", 1),
        |one| one.remove(ROOT, "a"),
        |away| away.remove(ROOT, "a"),
        &[],
    ),
    ("a tree", tree, remove_tree, |_| {}, &[]),
    (
        "a tree in which a file was made",
        tree,
        remove_tree,
        |away| {
            let inner = find(away, find(away, ROOT, "d"), "e");
            away.write(inner, "new", 3);
        },
        &["d/", "d/e/", "d/e/new=3"],
    ),
    (
        "a tree in which a file was edited",
        tree,
        remove_tree,
        |away| {
            let inner = find(away, find(away, ROOT, "d"), "e");
            away.edit(find(away, inner, "a"), 3);
        },
        &["d/", "d/e/", "d/e/a=3"],
    ),
    (
        "a directory from which a file was moved before",
        |one| {
            let directory = one.create(ROOT, "d", Kind::Directory);
            one.write(directory, "a", 1);
        },
        |one| {
            let directory = find(one, ROOT, "d");
            one.rename((directory, "a"), (ROOT, "b"));
            one.remove(ROOT, "d");
        },
        |_| {},
        &["b=1"],
    ),
    (
        "hard links",
        links,
        |one| {
            one.remove(ROOT, "a");
            one.remove(ROOT, "b");
        },
        |_| {},
        &[],
    ),
    (
        "hard links to a file that was edited",
        links,
        |one| {
            one.remove(ROOT, "a");
            one.remove(ROOT, "b");
        },
        |away| away.edit(find(away, ROOT, "a"), 2),
        &["a=2", "b=2"],
    ),
    ("one of two hard links", links, |one| one.remove(ROOT, "a"), |_| {}, &["b=1"]),
    (
        "one of two hard links, which was renamed",
        links,
        |one| one.remove(ROOT, "a"),
        |away| away.rename((ROOT, "a"), (ROOT, "c")),
        &["b=1", "c=1"],
    ),
];

fn tree(one: &mut Replica) {
    let directory = one.create(ROOT, "d", Kind::Directory);
    let inner = one.create(directory, "e", Kind::Directory);
    one.write(inner, "a", 1);
    one.write(inner, "b", 2);
}

fn remove_tree(one: &mut Replica) {
    let directory = find(one, ROOT, "d");
    let inner = find(one, directory, "e");
    one.remove(inner, "a");
    one.remove(inner, "b");
    one.remove(directory, "e");
    one.remove(ROOT, "d");
}

fn links(one: &mut Replica) {
    one.write(ROOT, "a", 1);
    let node = Node::Inode(find(one, ROOT, "a"));
    one.apply(Operation::Link { node, parent: ROOT, name: name("b") }).unwrap();
}

#[test]
fn who_comes_back_brings_back_its_changes_and_nothing_else() {
    for (what, prepare, remove, change, shown) in CASES {
        let mut all = three(prepare);
        remove(&mut all[0]);
        let mut forgotten = 0;
        while let more @ 1.. = forget_without_the_third(&mut all) {
            forgotten += more;
        }
        assert!(forgotten > 0, "{what}");
        change(&mut all[2]);
        settle(&mut all);
        for replica in &all {
            assert_eq!(replica.lines(), *shown, "{what}");
            replica.check();
        }
    }
}

#[test]
fn links_of_a_file_that_goes_on_stay_links_of_one_file() {
    let mut all = three(links);
    all[0].remove(ROOT, "a");
    all[0].remove(ROOT, "b");
    forget_without_the_third(&mut all);
    let old = find(&all[2], ROOT, "a");
    all[2].edit(old, 2);
    settle(&mut all);
    for replica in &all {
        let file = find(replica, ROOT, "a");
        assert_eq!(file, InodeId(renewed(old.0)));
        assert_eq!(file, find(replica, ROOT, "b"));
    }
}

#[test]
fn several_that_come_back_with_one_change_make_one_object_of_it() {
    let mut all: Vec<Replica> = (0..4).map(|number| Replica::new(number, START)).collect();
    all[0].write(ROOT, "a", 1);
    settle(&mut all);
    all[0].remove(ROOT, "a");
    forget_without_the_third(&mut all);
    let file = find(&all[2], ROOT, "a");
    all[2].edit(file, 2);
    let (forgetful, away) = all.split_at_mut(2);
    let (one, other) = away.split_at_mut(1);
    talk(&mut one[0], &mut other[0]);
    // Each hears from another.
    talk(&mut forgetful[0], &mut one[0]);
    talk(&mut forgetful[1], &mut other[0]);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["a=2"]);
    }
}

#[test]
fn a_file_that_is_open_goes_on_as_the_new_one() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    all[0].remove(ROOT, "a");
    forget_without_the_third(&mut all);
    let old = find(&all[2], ROOT, "a");
    all[2].edit(old, 2);
    // Opened at what was just saved, and closed when the others have been met.
    let context = all[2].shown_context(old);
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[0], &mut right[0]);
    let new = successor(&right[0].index, old).unwrap();
    assert_ne!(new, old);
    right[0].publish(old, context, 3).unwrap();
    assert_eq!(right[0].lines(), ["a=3"], "and nothing beside it");
    settle(&mut all);
    assert!(all.iter().all(|replica| replica.lines() == ["a=3"]));
}

#[test]
fn a_directory_that_something_living_has_its_place_in_is_kept_though_that_is_shown_elsewhere() {
    let mut all: Vec<Replica> = (0..3).map(|number| Replica::new(number, START)).collect();
    let one = all[0].create(ROOT, "one", Kind::Directory);
    let other = all[0].create(ROOT, "other", Kind::Directory);
    all[0].write(other, "a", 1);
    settle(&mut all);
    // Each is moved into the other: the later one is shown in the root. The other one is removed.
    all[1].now += 10_000;
    all[0].rename((ROOT, "one"), (other, "one"));
    all[0].remove(other, "one");
    all[1].rename((ROOT, "other"), (one, "other"));
    settle(&mut all);
    assert_eq!(find(&all[0], ROOT, "other"), other);
    let ids: Vec<DeviceId> = all.iter().map(device).collect();
    let before = all[0].lines();
    assert_eq!(before.len(), 2, "{before:?}");
    for (at, replica) in all.iter_mut().enumerate() {
        let others: Vec<_> = ids.iter().copied().filter(|id| *id != ids[at]).collect();
        forget(replica, &others);
        assert_eq!(replica.lines(), before);
    }
    settle(&mut all);
    assert!(all.iter().all(|replica| replica.lines() == before));
}

#[test]
fn who_took_the_last_name_is_heard_though_that_name_is_forgotten() {
    let mut all = three(links);
    // The third takes one name, and knows of nothing else.
    all[2].remove(ROOT, "a");
    // Of the other one nobody but him is told that it was the last.
    all[0].remove(ROOT, "b");
    assert_eq!(forget_without_the_third(&mut all), 1);
    all[2].remove(ROOT, "b");
    settle(&mut all);
    for replica in &all {
        assert!(replica.lines().is_empty(), "{:?}", replica.lines());
    }
}

#[test]
fn who_took_the_last_name_is_heard_though_a_save_over_the_other_waits() {
    let mut all = three(links);
    let draft = all[0].create(ROOT, "draft", Kind::File);
    all[0].rename((ROOT, "draft"), (ROOT, "b"));
    // Of the names that are left this is the last one, for him alone.
    all[0].remove(ROOT, "a");
    all[2].remove(ROOT, "a");
    assert_eq!(forget(&mut all[2], &[]), 1);
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[0], &mut right[0]);
    all[0].edit(draft, 9);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["b=9"]);
    }
}

#[test]
fn who_took_the_last_name_is_heard_by_way_of_one_who_still_has_another() {
    let mut all = three(links);
    let [first, second, third] = &mut all[..] else { unreachable!("there are three") };
    let draft = first.create(ROOT, "draft", Kind::File);
    first.rename((ROOT, "draft"), (ROOT, "b"));
    second.remove(ROOT, "a");
    assert_eq!(forget(second, &[]), 1);
    // The last one for him alone, as what took the other hasn't come to anybody yet.
    first.remove(ROOT, "a");
    talk(first, third);
    talk(second, third);
    first.edit(draft, 9);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["b=9"]);
    }
}

#[test]
fn a_file_that_comes_back_has_one_name_on_all_though_that_was_forgotten() {
    let mut all = three(links);
    let file = find(&all[0], ROOT, "a");
    all[2].remove(ROOT, "a");
    assert_eq!(forget(&mut all[2], &[]), 1);
    all[0].remove(ROOT, "b");
    all[0].remove(ROOT, "a");
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[0], &mut right[0]);
    // Of none of this the second knows. Its version is shown where the file was last.
    all[1].edit(file, 3);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["a=3"]);
        replica.check();
    }
}

#[test]
fn a_directory_goes_with_the_forgotten_name_that_kept_it() {
    let mut all = three(|one| {
        let directory = one.create(ROOT, "d", Kind::Directory);
        one.write(directory, "a", 1);
        let node = Node::Inode(find(one, directory, "a"));
        one.apply(Operation::Link { node, parent: ROOT, name: name("b") }).unwrap();
    });
    let directory = find(&all[2], ROOT, "d");
    all[2].remove(directory, "a");
    all[2].remove(ROOT, "d");
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[1], &mut right[0]);
    assert_eq!(forget(&mut all[2], &[]), 1);
    // Neither took the last one.
    all[0].remove(ROOT, "b");
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["b=1"]);
        replica.check();
    }
}

#[test]
fn a_file_that_was_removed_in_a_forgotten_directory_comes_back_with_what_its_remover_did_not_see() {
    let mut all: Vec<Replica> = (0..2).map(|number| Replica::new(number, START)).collect();
    all[0].create(ROOT, "d", Kind::Directory);
    all[0].write(ROOT, "a", 1);
    settle(&mut all);
    all[0].remove(ROOT, "d");
    assert_eq!(forget(&mut all[0], &[]), 2, "the second left the circle");
    let file = find(&all[0], ROOT, "a");
    all[0].edit(file, 2);
    let directory = find(&all[1], ROOT, "d");
    all[1].rename((ROOT, "a"), (directory, "a"));
    all[1].remove(directory, "a");
    settle(&mut all);
    for replica in &all {
        assert!(replica.lines().iter().any(|line| line.ends_with("a=2")), "{:?}", replica.lines());
        assert_eq!(replica.lines(), all[0].lines());
    }
}

#[test]
fn that_somebody_else_removed_it_too_keeps_nothing() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    let file = find(&all[0], ROOT, "a");
    // The first makes a version that reaches the second, and leaves with the file removed.
    all[0].edit(file, 2);
    let (one, other) = pair(&mut all);
    talk(one, other);
    all[0].remove(ROOT, "a");
    assert_eq!(forget(&mut all[0], &[]), 2);
    // The third removed what it had: the second's version lives on until the first is heard.
    all[2].remove(ROOT, "a");
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[1], &mut right[0]);
    assert_eq!(left[1].lines(), ["a=2"]);
    settle(&mut all);
    for replica in &all {
        assert!(replica.lines().is_empty(), "{:?}", replica.lines());
    }
}

#[test]
fn who_only_heard_what_is_forgotten_passes_on_what_was_known_of_it() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    all[0].remove(ROOT, "a");
    assert!(forget_without_the_third(&mut all) > 0);
    let mut new = Replica::new(3, START);
    hear_only(&mut new, &mut all[1]);
    // Of two files that are there, it knows neither; but who forgot one knew all of that.
    all[2].write(ROOT, "b", 2);
    assert_eq!(new.index.hearsay().unwrap().len(), 1);
    talk(&mut new, &mut all[2]);
    all.push(new);
    for replica in &all[2..] {
        assert!(replica.index.shown(ROOT, &name("a")).unwrap().is_none());
        assert!(replica.index.shown(ROOT, &name("b")).unwrap().is_some());
    }
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.index.view().count(), 1);
        assert_eq!(replica.index.hearsay().unwrap(), [], "each knows all of it now");
    }
}

#[test]
fn what_was_known_of_one_that_is_forgotten_is_not_claimed_of_another() {
    let mut all: Vec<Replica> = (0..4).map(|number| Replica::new(number, START)).collect();
    all[0].write(ROOT, "a", 1);
    all[0].write(ROOT, "b", 2);
    settle(&mut all[..3]);
    // The first knows of the edit, and leaves with something else forgotten; the second doesn't.
    let edited = find(&all[2], ROOT, "b");
    all[2].edit(edited, 3);
    let [first, second, third, new] = &mut all[..] else { unreachable!("there are four") };
    talk(first, third);
    first.remove(ROOT, "a");
    second.remove(ROOT, "b");
    assert_eq!((forget(first, &[]), forget(second, &[])), (2, 2));
    hear_only(new, first);
    hear_only(new, second);
    assert_eq!(new.index.hearsay().unwrap().len(), 2);
    talk(new, third);
    assert_eq!(third.lines(), ["b=3"]);
    settle(&mut all);
    assert!(all.iter().all(|replica| replica.lines() == ["b=3"]));
}

#[test]
fn what_goes_on_as_new_does_not_bring_back_what_it_moves_aside() {
    let mut all: Vec<Replica> = (0..4).map(|number| Replica::new(number, START)).collect();
    all[0].write(ROOT, "a", 1);
    settle(&mut all);
    let edited = find(&all[0], ROOT, "a");
    // The first saves over the file, tells the second, and then removes that too.
    all[0].write(ROOT, "draft", 9);
    all[0].rename((ROOT, "draft"), (ROOT, "a"));
    let (one, other) = pair(&mut all);
    talk(one, other);
    all[0].remove(ROOT, "a");
    assert_eq!(forget(&mut all[0], &[]), 4);
    // What was saved over lives on, as two versions at a name with what was saved.
    for at in [2, 3] {
        all[at].now += 10_000;
        all[at].edit(edited, at as u8);
        let (left, right) = all.split_at_mut(at);
        talk(&mut left[1], &mut right[0]);
    }
    assert_eq!(all[1].lines().len(), 3, "{:?}", all[1].lines());
    settle(&mut all);
    for replica in &all {
        let lines = replica.lines();
        assert!(lines.len() == 2 && lines.iter().all(|line| !line.ends_with("=9")), "{lines:?}");
    }
}

#[test]
fn a_copy_that_others_removed_does_not_come_back_with_the_file_that_it_was_beside() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    let file = find(&all[0], ROOT, "a");
    all[1].edit(file, 2);
    all[2].now += 10_000;
    all[2].edit(file, 3);
    settle(&mut all);
    let lines = all[0].lines();
    assert!(lines.len() == 2 && lines[0] == "a=3" && lines[1].ends_with("=2"), "{lines:?}");
    // The first removes both; the third goes on with the one.
    for line in lines.iter().rev() {
        all[0].remove(ROOT, line.rsplit_once('=').unwrap().0);
    }
    assert_eq!(forget(&mut all[0], &[]), 4);
    all[2].edit(file, 4);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["a=4"]);
    }
}

#[test]
fn what_was_only_taken_along_is_gone_once_it_is_heard_that_others_removed_it() {
    let mut all = three(|one| {
        one.create(ROOT, "d", Kind::Directory);
    });
    let directory = find(&all[0], ROOT, "d");
    all[0].write(directory, "a", 1);
    let (one, other) = pair(&mut all);
    talk(one, other);
    // The third knows nothing of the file, the first removes it too.
    all[2].remove(ROOT, "d");
    all[0].remove(directory, "a");
    all[0].remove(ROOT, "d");
    assert_eq!((forget(&mut all[2], &[]), forget(&mut all[0], &[])), (2, 4));
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[1], &mut right[0]);
    for replica in &all[1..] {
        assert_eq!(replica.lines(), ["d/", "d/a=1"]);
    }
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["d/"]);
    }
}

#[test]
fn what_others_made_a_file_of_is_not_let_go_before_that_has_come() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    let file = find(&all[0], ROOT, "a");
    all[1].edit(file, 2);
    all[2].now += 10_000;
    all[2].edit(file, 3);
    settle(&mut all);
    // The version beside it becomes a file, and the one that it was beside is forgotten.
    all[0].remove(ROOT, "a");
    assert_eq!(forget_without_the_third(&mut all), 2);
    let (left, right) = all.split_at_mut(2);
    hear_only(&mut right[0], &mut left[1]);
    assert_eq!(right[0].lines(), [] as [&str; 0]);
    assert_eq!(forget(&mut right[0], &[]), 0);
    talk(&mut left[1], &mut right[0]);
    for replica in &all {
        let lines = replica.lines();
        assert!(lines.len() == 1 && lines[0].ends_with("=2"), "{lines:?}");
    }
    assert_eq!(forget(&mut all[2], &[]), 2);
}

#[test]
fn a_file_that_was_being_made_under_two_names_is_sent_once_one_of_its_folders_was_forgotten() {
    let mut all = three(|one| {
        one.create(ROOT, "d", Kind::Directory);
    });
    let directory = find(&all[0], ROOT, "d");
    let file = all[0].create(ROOT, "a", Kind::File);
    let name = name("b");
    let link = Operation::Link { node: Node::Inode(file), parent: directory, name };
    all[0].apply(link).unwrap();
    // Its names have numbers that others count as known, though they were never sent.
    let (one, other) = pair(&mut all);
    talk(one, other);
    all[1].remove(ROOT, "d");
    assert_eq!(forget(&mut all[1], &[]), 2);
    // The connection breaks before the rest has come.
    let (one, other) = pair(&mut all);
    hear_only(one, other);
    all[0].edit(file, 1);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), ["a=1", "d/", "d/b=1"]);
    }
}

#[test]
fn what_lives_in_a_directory_that_only_one_device_still_has_is_shown_by_all() {
    let mut all: Vec<Replica> = (0..3).map(|number| Replica::new(number, START)).collect();
    let outer = all[0].create(ROOT, "outer", Kind::Directory);
    let gone = all[0].create(outer, "gone", Kind::Directory);
    let kept = all[0].create(ROOT, "kept", Kind::Directory);
    all[0].create(kept, "last", Kind::Directory);
    let (one, other) = pair(&mut all);
    talk(one, other);
    all[1].now += 10_000;
    all[1].remove(kept, "last");
    all[1].rename((ROOT, "kept"), (gone, "kept"));
    all[0].rename((ROOT, "outer"), (kept, "outer"));
    all[0].rename((kept, "last"), (outer, "gone"));
    assert_eq!(forget(&mut all[0], &[]), 2);
    // The second hears that a third removed the directory which it put into the one that is gone.
    let (left, right) = all.split_at_mut(2);
    talk(&mut left[1], &mut right[0]);
    right[0].remove(gone, "kept");
    talk(&mut left[1], &mut right[0]);
    settle(&mut all);
    for replica in &all {
        assert_eq!(replica.lines(), all[0].lines());
        assert!(replica.lines().contains(&"kept/outer/".to_owned()), "{:?}", replica.lines());
    }
}

#[test]
fn a_file_that_was_being_made_when_a_copy_of_it_was_forgotten_goes_on_with_its_version() {
    let mut one = Replica::new(0, START);
    let file = one.create(ROOT, "a", Kind::File);
    // Another machine goes on with a copy of the index, and makes, removes and forgets the same file.
    let mut copy = one.clone();
    copy.edit(file, 1);
    copy.remove(ROOT, "a");
    assert_eq!(forget(&mut copy, &[]), 2);
    let mut third = Replica::new(1, START);
    talk(&mut copy, &mut third);
    for what in ["published", "renamed, and published"] {
        let (mut one, mut third) = (one.clone(), third.clone());
        talk(&mut one, &mut third);
        if what != "published" {
            one.rename((ROOT, "a"), (ROOT, "b"));
        }
        one.edit(file, 2);
        settle(std::slice::from_mut(&mut one));
        talk(&mut one, &mut third);
        for replica in [&one, &third] {
            let lines = replica.lines();
            assert!(lines.len() == 1 && lines[0].ends_with("=2"), "{what}: {lines:?}");
        }
    }
}

#[test]
fn what_a_device_keeps_others_cannot_shorten() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    let file = find(&all[0], ROOT, "a");
    all[0].remove(ROOT, "a");
    settle(&mut all);
    let ids: Vec<DeviceId> = all.iter().map(device).collect();
    assert_eq!(forget(&mut all[0], &ids[1..]), 2);
    settle(&mut all);
    assert!(all[1].index.is_forgotten_inode(file).unwrap(), "it has heard");
    assert!(all[1].index.inode(file).unwrap().is_some(), "and keeps what it has");
    assert_eq!(forget_before(&mut all[1], &ids[..1], kith_core::clock::WallMs(START)), 0);
    // Its own time is over: nobody is asked any more.
    assert_eq!(forget(&mut all[1], &[DeviceId([99; 32])]), 2);
    assert!(all[1].index.inode(file).unwrap().is_none());
}

#[test]
fn an_old_copy_of_an_index_brings_nothing_back() {
    let mut all = three(|one| one.write(ROOT, "a", 1));
    let old = all[1].clone();
    all[0].remove(ROOT, "a");
    settle(&mut all);
    let ids: Vec<DeviceId> = all.iter().map(device).collect();
    assert_eq!(forget(&mut all[0], &ids[1..]), 2);
    all[1] = old;
    assert_eq!(all[1].lines(), ["a=1"]);
    settle(&mut all);
    assert!(all.iter().all(|replica| replica.lines().is_empty()));
}
