//! What programs that watch a folder (`inotify`) hear of what other devices do.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::pulse;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody who watches, and what was heard so far.
struct Watcher {
    queue: OwnedFd,
    heard: Vec<(i32, String, ReadFlags)>,
}

impl Watcher {
    fn new() -> Watcher {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        Watcher { queue, heard: Vec::new() }
    }

    fn watch(&self, path: &Path) -> i32 {
        inotify::add_watch(&self.queue, path, WatchFlags::ALL_EVENTS).unwrap()
    }

    fn listen(&mut self) {
        let mut room = [MaybeUninit::uninit(); 16 << 10];
        let mut events = inotify::Reader::new(&self.queue, &mut room);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                    self.heard.push((event.wd(), name.unwrap_or_default(), event.events()));
                }
                Err(Errno::AGAIN) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until all of these were heard of a name, in this order, and forgets what was heard.
    fn hears(&mut self, of: i32, name: &str, events: &[ReadFlags]) {
        pulse::until(PATIENCE, &format!("{events:?} of {name:?} is heard"), || {
            self.listen();
            let mut wanted = events.iter();
            let mut next = wanted.next();
            for (watch, heard, event) in &self.heard {
                if *watch == of && heard == name && next.is_some_and(|next| event.contains(*next)) {
                    next = wanted.next();
                }
            }
            if next.is_none() { Ok(()) } else { Err(format!("{:?}", self.heard)) }
        });
        self.heard.retain(|(watch, heard, _)| *watch != of || heard != name);
    }
}

#[test]
fn who_watches_hears_what_another_device_does() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let (here, there) = (&circle[0], &circle[1]);
    fs::create_dir(there.path("directory")).unwrap();
    for name in ["changed", "saved", "removed", "moved"] {
        fs::write(there.path("directory").join(name), format!("{name} before")).unwrap();
    }
    circle.settle();
    let (directory, elsewhere) = (here.path("directory"), there.path("directory"));
    let mut watcher = Watcher::new();
    let (root, inside) = (watcher.watch(here.mount()), watcher.watch(&directory));
    // What came before the watch may still be told of; it ends with this.
    fs::write(elsewhere.join("last"), "last").unwrap();
    watcher.hears(inside, "last", &[ReadFlags::CREATE, ReadFlags::CLOSE_WRITE]);
    watcher.heard.clear();
    let (made, changed) = (ReadFlags::CREATE, [ReadFlags::MODIFY, ReadFlags::CLOSE_WRITE]);

    fs::write(elsewhere.join("new"), "new").unwrap();
    watcher.hears(inside, "new", &[made, ReadFlags::CLOSE_WRITE]);
    assert_eq!(fs::read(directory.join("new")).unwrap(), b"new");

    fs::create_dir(there.path("another")).unwrap();
    watcher.hears(root, "another", &[made | ReadFlags::ISDIR]);
    std::os::unix::fs::symlink("new", elsewhere.join("link")).unwrap();
    watcher.hears(inside, "link", &[made]);
    assert_eq!(fs::read_link(directory.join("link")).unwrap(), Path::new("new"));

    // What is open goes on as it was opened, and who watches the file itself hears of its end.
    let mut open = File::open(directory.join("changed")).unwrap();
    let itself = watcher.watch(&directory.join("changed"));
    fs::write(elsewhere.join("changed"), "and after").unwrap();
    watcher.hears(inside, "changed", &changed);
    assert_eq!(fs::read(directory.join("changed")).unwrap(), b"and after");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), open.metadata().unwrap().nlink()), ("changed before", 0));
    watcher.hears(itself, "", &[ReadFlags::DELETE_SELF]);
    drop(open);

    fs::remove_file(elsewhere.join("removed")).unwrap();
    watcher.hears(inside, "removed", &[ReadFlags::DELETE]);
    assert!(!directory.join("removed").exists());

    fs::rename(elsewhere.join("moved"), there.path("another/moved")).unwrap();
    watcher.hears(inside, "moved", &[ReadFlags::DELETE]);

    // Saving as editors do is a new version of the name.
    fs::write(there.path("beside"), "saved").unwrap();
    fs::rename(there.path("beside"), elsewhere.join("saved")).unwrap();
    watcher.hears(inside, "saved", &[ReadFlags::CLOSE_WRITE]);
    assert_eq!(fs::read(directory.join("saved")).unwrap(), b"saved");

    // Nothing of what was shown is there.
    let tree = circle.settle();
    assert_eq!(tree.nodes.len(), 8, "{:?}", tree.nodes.keys());
}

#[test]
fn who_watches_a_file_itself_hears_that_another_device_replaced_or_removed_it() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let (here, there) = (&circle[0], &circle[1]);
    for name in ["replaced", "removed"] {
        fs::write(there.path(name), "before").unwrap();
    }
    circle.settle();
    let mut watcher = Watcher::new();
    let [replaced, removed] = ["replaced", "removed"].map(|name| watcher.watch(&here.path(name)));
    fs::write(there.path("replaced"), "after").unwrap();
    watcher.hears(replaced, "", &[ReadFlags::DELETE_SELF, ReadFlags::IGNORED]);
    fs::remove_file(there.path("removed")).unwrap();
    watcher.hears(removed, "", &[ReadFlags::DELETE_SELF, ReadFlags::IGNORED]);
    assert_eq!(fs::read(here.path("replaced")).unwrap(), b"after");
    assert!(!here.path("removed").exists());
    circle.settle();
}

/// Says that all is over when it goes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_who_looks_sees_what_is_done_for_those_who_watch() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let (here, there) = (&circle[0], &circle[1]);
    fs::create_dir(there.path("directory")).unwrap();
    circle.settle();
    let (directory, elsewhere) = (here.path("directory"), there.path("directory"));
    let mut watcher = Watcher::new();
    let inside = watcher.watch(&directory);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also if a wait below is in vain.
        let _ended = Ended(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for name in (0..4).map(|number| directory.join(number.to_string())) {
                    let Ok(metadata) = fs::symlink_metadata(&name) else { continue };
                    // Whatever another device makes here has bytes, and an ordinary number.
                    let seen = (metadata.ino() >> 63, metadata.len());
                    assert!(seen == (0, 5) || seen == (0, 6), "{name:?}: {metadata:?}");
                    if let Ok(bytes) = fs::read(&name) {
                        assert!(bytes == b"first" || bytes == b"second", "{bytes:?}");
                    }
                }
            }
        });
        for round in 0..6 {
            for number in 0..4 {
                let name = number.to_string();
                match round % 3 {
                    0 => fs::write(elsewhere.join(name), "first").unwrap(),
                    1 => fs::write(elsewhere.join("new"), "second")
                        .and_then(|()| fs::rename(elsewhere.join("new"), elsewhere.join(name)))
                        .unwrap(),
                    _ => fs::remove_file(elsewhere.join(name)).unwrap(),
                }
            }
            let last = match round % 3 {
                0 => ReadFlags::CREATE,
                1 => ReadFlags::CLOSE_WRITE,
                _ => ReadFlags::DELETE,
            };
            watcher.hears(inside, "3", &[last]);
        }
    });
    assert_eq!(circle.settle().nodes.len(), 1);
}
