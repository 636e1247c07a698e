//! Random steps on two and three devices: the view that is kept up is the one that the registers
//! make, after every step; devices that heard of everything show the same; and nothing that was
//! saved is lost.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::id::InodeId;
use kith_core::index::{IndexRead, Node, Shown};
use kith_core::name::EntryName;
use kith_core::operation::{AttributeChange, Operation, RenameMode};
use kith_core::register::{Kind, Owner};
use kith_tests::replicas::{Replica, World, name};
use proptest::prelude::*;

/// One random step. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create {
        at: usize,
        parent: usize,
        name: u8,
        kind: u8,
    },
    Link {
        at: usize,
        row: usize,
        parent: usize,
        name: u8,
    },
    Remove {
        at: usize,
        row: usize,
    },
    Rename {
        at: usize,
        row: usize,
        parent: usize,
        name: u8,
        mode: RenameMode,
    },
    RenameOver {
        at: usize,
        row: usize,
        target: usize,
        mode: RenameMode,
    },
    Chmod {
        at: usize,
        row: usize,
        mode: u16,
    },
    Open {
        at: usize,
        row: usize,
    },
    Publish {
        at: usize,
        file: usize,
        content: u8,
    },
    Settle {
        at: usize,
        row: usize,
    },
    Abandon {
        at: usize,
        file: usize,
    },
    /// Some of what `from` has arrives at `to`, in an order of its own.
    Send {
        from: usize,
        to: usize,
        seed: u64,
        part: usize,
    },
    /// All that `from` has arrives at `to`.
    SendAll {
        from: usize,
        to: usize,
    },
    Clock {
        at: usize,
        ahead_ms: u64,
    },
}

fn pick<T: Clone>(from: &[T], number: usize) -> Option<T> {
    if from.is_empty() { None } else { Some(from[number % from.len()].clone()) }
}

/// A short list, so that devices often choose the same. Some look like labelled names.
fn chosen_name(number: u8) -> EntryName {
    let names = ["a", "b", "c.txt", "d", "a (desk)", "a (lap)", "a (desk) 2", "a (lap) 3"];
    name(names[usize::from(number) % names.len()])
}

fn take(world: &mut World, step: Step) {
    let count = world.replicas.len();
    let at = match &step {
        Step::Send { to, .. } | Step::SendAll { to, .. } => to % count,
        Step::Create { at, .. }
        | Step::Link { at, .. }
        | Step::Remove { at, .. }
        | Step::Rename { at, .. }
        | Step::RenameOver { at, .. }
        | Step::Chmod { at, .. }
        | Step::Open { at, .. }
        | Step::Publish { at, .. }
        | Step::Settle { at, .. }
        | Step::Abandon { at, .. }
        | Step::Clock { at, .. } => at % count,
    };
    match step {
        Step::Send { from, seed, part, .. } => {
            let mut registers = world.replicas[from % count].index.registers();
            shuffle(&mut registers, seed);
            registers.truncate(part % (registers.len() + 1));
            world.replicas[at].receive(registers);
        }
        Step::SendAll { from, .. } => {
            let registers = world.replicas[from % count].index.registers();
            world.replicas[at].receive(registers);
        }
        Step::Clock { ahead_ms, .. } => world.replicas[at].now += ahead_ms,
        step => operate(world, at, step),
    }
    world.replicas[at].check();
}

fn operate(world: &mut World, at: usize, step: Step) {
    let replica = &mut world.replicas[at];
    let rows: Vec<Shown> = replica.index.view().cloned().collect();
    let mut parents = vec![InodeId::ROOT];
    let is_directory = |row: &&Shown| replica.kind(row.node) == Kind::Directory;
    parents.extend(rows.iter().filter(is_directory).map(|row| row.node.key()));
    let parent = |number: usize| parents[number % parents.len()];
    let files = replica.index.inodes().filter(|state| state.inode.kind == Kind::File);
    let files: Vec<InodeId> = files.map(|state| state.inode.id).collect();
    let operation = match step {
        Step::Create { parent: number, name, kind, .. } => {
            let kind = match kind % 8 {
                0..4 => Kind::File,
                4..7 => Kind::Directory,
                _ => Kind::Symlink(Box::new([b'x', kind])),
            };
            let (user, group) = (Owner::Person, Owner::Person);
            let (parent, name) = (parent(number), chosen_name(name));
            Operation::Create { parent, name, kind, mode: 0o755, user, group }
        }
        Step::Link { row, parent: number, name, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            let (parent, name) = (parent(number), chosen_name(name));
            Operation::Link { node: row.node, parent, name }
        }
        Step::Remove { row, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            let directory = replica.kind(row.node) == Kind::Directory;
            Operation::Remove { parent: row.parent, name: row.name, directory }
        }
        Step::Rename { row, parent: number, name, mode, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            let to = (parent(number), chosen_name(name));
            Operation::Rename { from: (row.parent, row.name), to, mode }
        }
        Step::RenameOver { row, target, mode, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            let Some(target) = pick(&rows, target) else { return };
            let (from, to) = ((row.parent, row.name), (target.parent, target.name));
            Operation::Rename { from, to, mode }
        }
        Step::Chmod { row, mode, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            let change = AttributeChange { mode: Some(mode), ..AttributeChange::default() };
            Operation::SetAttributes { node: row.node, change }
        }
        Step::Settle { row, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            Operation::Settle { node: row.node }
        }
        Step::Open { row, .. } => {
            let Some(row) = pick(&rows, row) else { return };
            if replica.kind(row.node) == Kind::File {
                let node = replica.apply(Operation::Settle { node: row.node }).unwrap().node;
                let inode = node.unwrap().key();
                let context = replica.shown_context(inode);
                replica.bases.insert(inode, context);
            }
            return;
        }
        Step::Publish { file, content, .. } => {
            if let Some(file) = pick(&files, file) {
                world.publish(at, file, content % 8);
            }
            return;
        }
        Step::Abandon { file, .. } => {
            let Some(inode) = pick(&files, file) else { return };
            Operation::Abandon { inode }
        }
        Step::Send { .. } | Step::SendAll { .. } | Step::Clock { .. } => return,
    };
    let before = replica.lines();
    let shown = |replica: &Replica, at: &(InodeId, EntryName)| {
        replica.index.shown(at.0, &at.1).unwrap().map(|row| row.node.key())
    };
    let told = operation.clone();
    match replica.apply(operation) {
        Ok(applied) => match told {
            Operation::Create { parent, name, .. } | Operation::Link { parent, name, .. } => {
                let node = applied.node.map(Node::key);
                assert_eq!(shown(replica, &(parent, name)), node, "what was made is shown");
            }
            Operation::Remove { parent, name, .. } => {
                assert_eq!(shown(replica, &(parent, name)), None, "what was removed is gone");
            }
            Operation::Rename { from, to, mode } if from != to => {
                // Two names of one file both stay.
                let node = applied.node.map(Node::key);
                let stayed = shown(replica, &from) == node;
                assert_eq!(shown(replica, &to), node, "what was moved is where it should be");
                if mode != RenameMode::Exchange && !stayed {
                    assert_eq!(shown(replica, &from), None, "and not where it was");
                }
            }
            Operation::Settle { .. } => {
                assert_eq!(replica.lines(), before, "settling changes nothing that is seen");
            }
            _ => {}
        },
        Err(_) => assert_eq!(replica.lines(), before),
    }
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for at in (1..items.len()).rev() {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(at, (state % (at as u64 + 1)) as usize);
    }
}

fn mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        1 => Just(RenameMode::Exchange),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..64_usize;
    let at = 0..3_usize;
    prop_oneof![
        6 => (at.clone(), n.clone(), any::<u8>(), any::<u8>())
            .prop_map(|(at, parent, name, kind)| Step::Create { at, parent, name, kind }),
        2 => (at.clone(), n.clone(), n.clone(), any::<u8>())
            .prop_map(|(at, row, parent, name)| Step::Link { at, row, parent, name }),
        4 => (at.clone(), n.clone()).prop_map(|(at, row)| Step::Remove { at, row }),
        5 => (at.clone(), n.clone(), n.clone(), any::<u8>(), mode())
            .prop_map(|(at, row, parent, name, mode)| Step::Rename { at, row, parent, name, mode }),
        3 => (at.clone(), n.clone(), n.clone(), mode())
            .prop_map(|(at, row, target, mode)| Step::RenameOver { at, row, target, mode }),
        1 => (at.clone(), n.clone(), any::<u16>())
            .prop_map(|(at, row, mode)| Step::Chmod { at, row, mode }),
        1 => (at.clone(), n.clone()).prop_map(|(at, row)| Step::Open { at, row }),
        6 => (at.clone(), n.clone(), any::<u8>())
            .prop_map(|(at, file, content)| Step::Publish { at, file, content }),
        1 => (at.clone(), n.clone()).prop_map(|(at, row)| Step::Settle { at, row }),
        1 => (at.clone(), n.clone()).prop_map(|(at, file)| Step::Abandon { at, file }),
        3 => (at.clone(), at.clone(), any::<u64>(), n.clone())
            .prop_map(|(from, to, seed, part)| Step::Send { from, to, seed, part }),
        3 => (at.clone(), at.clone()).prop_map(|(from, to)| Step::SendAll { from, to }),
        1 => (at, 0..2_000_000_u64).prop_map(|(at, ahead_ms)| Step::Clock { at, ahead_ms }),
    ]
}

fn run(count: usize, steps: Vec<Step>) {
    let mut world = World::new(count);
    for step in steps {
        take(&mut world, step);
    }
    world.heal();
    world.check_healed();
}

proptest! {
    #[test]
    fn two_devices_end_up_with_the_same_tree(steps in proptest::collection::vec(step(), 1..60)) {
        run(2, steps);
    }

    #[test]
    fn three_devices_end_up_with_the_same_tree(steps in proptest::collection::vec(step(), 1..90)) {
        run(3, steps);
    }
}
