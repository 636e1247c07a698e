//! Measures the index: `cargo run --release -p kith-store --example index_speed -- DIR [FILES]`.
//!
//! Prints microseconds for each step of a file's life and the index's bytes for each file. DIR
//! must not exist yet, and is left behind.

use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::{ChunkId, DeviceId, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{Applied, AttributeChange, Context, Operation, RenameMode, apply};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_store::{Founding, NodeRead, Store, StoreError};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

/// Files of one directory.
const IN_DIRECTORY: usize = 100;

fn context(step: usize) -> Context {
    Context { now: WallMs(1_790_000_000_000 + step as u64), tag: Tag(step as u64) }
}

fn once(store: &Store, step: usize, operation: Operation) -> Result<Applied, Box<dyn Error>> {
    let done = store.write(|transaction| {
        let now = UnixTime { seconds: 1_790_000_000, nanoseconds: 5 };
        let parent = match &operation {
            Operation::Create { parent, .. } | Operation::Remove { parent, .. } => Some(*parent),
            _ => None,
        };
        let applied = apply(transaction, context(step), operation);
        let applied =
            applied.map_err(|error| StoreError::Io(std::io::Error::other(format!("{error:?}"))))?;
        if let Some(parent) = parent {
            transaction.touch_node(parent, now, Some(now))?;
        }
        Ok::<_, StoreError>(applied)
    })?;
    Ok(done)
}

/// How long this process has been running, also where others keep the machine busy.
fn processor_ns() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split(' ').next().ok_or("no figure")?.parse()?)
}

/// How many KiB this process has read and written so far.
fn moved_kib() -> Result<[f64; 2], Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let figure = |name| -> Result<f64, Box<dyn Error>> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.ok_or("no figure")?.parse::<f64>()? / 1024.0)
    };
    Ok([figure("rchar: ")?, figure("wchar: ")?])
}

fn timed(
    what: &str,
    count: usize,
    mut work: impl FnMut(usize) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (begun, processor, before) = (Instant::now(), processor_ns()?, moved_kib()?);
    for step in 0..count {
        work(step)?;
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / count as f64;
    let busy = (processor_ns()? - processor) as f64 / 1e3 / count as f64;
    let [read, written] = moved_kib()?;
    let [read, written] = [read - before[0], written - before[1]].map(|kib| kib / count as f64);
    println!(
        "{what:<28}{each:>8.1} µs {busy:>8.1} µs processor {read:>8.1} KiB read {written:>6.1} written"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let directory = Path::new(arguments.get(1).ok_or("usage: index_speed DIR [FILES]")?);
    let files: usize = arguments.get(2).map_or(Ok(20_000), |text| text.parse())?;
    let store = Store::open(
        directory,
        &Founding {
            share: ShareId([1; 16]),
            device: DeviceId([2; 32]),
            writer: WriterId(0x8765_4321_1234_5678),
            author: "laptop".into(),
            now: WallMs(1_790_000_000_000),
            tag: Tag(1),
        },
    )?;
    let file = |step: usize| EntryName::new(format!("IMG_{step:06}.jpeg").as_bytes());
    let create = |store: &Store, step, parent, name, kind| {
        let (user, group) = (Owner::Person, Owner::Person);
        once(store, step, Operation::Create { parent, name, kind, mode: 0o644, user, group })
    };
    let mut directories: Vec<InodeId> = Vec::new();
    timed("create a directory", files.div_ceil(IN_DIRECTORY), |step| {
        let name = EntryName::new(format!("directory-{step}").as_bytes())?;
        let made = create(&store, step, InodeId::ROOT, name, Kind::Directory)?;
        directories.push(made.node.ok_or("no node")?.inode());
        Ok(())
    })?;
    let mut inodes: Vec<InodeId> = Vec::new();
    timed("create a file", files, |step| {
        let parent = directories[step / IN_DIRECTORY];
        let made = create(&store, step, parent, file(step)?, Kind::File)?;
        inodes.push(made.node.ok_or("no node")?.inode());
        Ok(())
    })?;
    timed("publish a file", files, |step| {
        let id = ChunkId::of(&step.to_le_bytes());
        let layout = Layout::Inline(vec![Piece::Chunk { id, len_bytes: 4000 }]);
        let publish = Operation::Publish {
            inode: inodes[step],
            context: VersionVector::new(),
            parents: Vec::new(),
            content: Content { size_bytes: 4000, layout },
            mtime: UnixTime { seconds: 1_790_000_000, nanoseconds: 1234 },
            mark: Mark::Closed,
        };
        let inode = inodes[step];
        store.write(|transaction| {
            apply(transaction, context(step), publish)
                .map_err(|error| StoreError::Io(std::io::Error::other(format!("{error:?}"))))?;
            let version =
                transaction.inode(inode)?.and_then(|state| state.inode.latest().map(|v| v.dot));
            version.map_or(Ok(()), |version| transaction.mark_complete(inode, version))
        })?;
        Ok(())
    })?;
    store.sync()?;
    let size = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |it| it.len());
    timed("change the mode", files, |step| {
        let change = AttributeChange { mode: Some(0o600), ..AttributeChange::default() };
        let node = Node::Inode(inodes[step]);
        once(&store, step, Operation::SetAttributes { node, change }).map(drop)
    })?;
    timed("begin a snapshot", files, |_| {
        store.snapshot()?;
        Ok(())
    })?;
    timed("look a name up", files, |step| {
        let found = store.snapshot()?.look_up(directories[step / IN_DIRECTORY], &file(step)?)?;
        found.map(drop).ok_or("not found".into())
    })?;
    timed("list 100 names with nodes", directories.len(), |step| {
        let listed = store.snapshot()?.list_nodes(directories[step], None, 1000)?;
        if listed.len() == IN_DIRECTORY { Ok(()) } else { Err("not all listed".into()) }
    })?;
    timed("read 100 changes", files / 100, |step| {
        store.snapshot()?.changes_after(step as u64 * 100, 100)?;
        Ok(())
    })?;
    timed("rename", files, |step| {
        let parent = directories[step / IN_DIRECTORY];
        let to = EntryName::new(format!("RENAMED_{step:06}.jpeg").as_bytes())?;
        let (from, to) = ((parent, file(step)?), (parent, to));
        once(&store, step, Operation::Rename { from, to, mode: RenameMode::Replace }).map(drop)
    })?;
    timed("remove", files / 2, |step| {
        let parent = directories[step / IN_DIRECTORY];
        let name = EntryName::new(format!("RENAMED_{step:06}.jpeg").as_bytes())?;
        once(&store, step, Operation::Remove { parent, name, directory: false }).map(drop)
    })?;
    timed("sync", 100, |step| {
        let name = EntryName::new(format!("synced-{step}").as_bytes())?;
        create(&store, step, InodeId::ROOT, name, Kind::Fifo)?;
        Ok(store.sync()?)
    })?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!("{memory}");
    println!("totals: {:?}", store.snapshot()?.totals()?);
    store.close();
    println!("{:<28}{:>10.0} bytes", "index, each file", size("index.db") as f64 / files as f64);
    Ok(())
}
