//! Which files the kernel may hold unwritten bytes of: those that are open for writing, and by whom.

use crate::volume::{Handle, Ino};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The handles that can write, and how many each file has.
#[derive(Default)]
pub(super) struct Writers(Mutex<Open>);

#[derive(Default)]
struct Open {
    openings: HashMap<Handle, Opening>,
    counts: HashMap<Ino, usize>,
}

struct Opening {
    file: Ino,
    /// The thread that asked for it.
    thread: u32,
}

/// A handle that can write, to go on with in another process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenWriter {
    /// The handle.
    pub handle: Handle,
    /// The file.
    pub file: Ino,
    /// The thread that asked for it.
    pub thread: u32,
}

impl FromIterator<OpenWriter> for Writers {
    fn from_iter<I: IntoIterator<Item = OpenWriter>>(left: I) -> Self {
        let writers = Writers::default();
        for OpenWriter { handle, file, thread } in left {
            writers.opened(handle, file, thread);
        }
        writers
    }
}

impl Writers {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What another process needs to go on.
    pub(super) fn left(&self) -> Vec<OpenWriter> {
        let open = self.open();
        let writer = |(handle, opening): (&Handle, &Opening)| OpenWriter {
            handle: *handle,
            file: opening.file,
            thread: opening.thread,
        };
        open.openings.iter().map(writer).collect()
    }

    /// A handle that can write was opened for a thread.
    pub(super) fn opened(&self, handle: Handle, file: Ino, thread: u32) {
        let mut open = self.open();
        if open.openings.insert(handle, Opening { file, thread }).is_none() {
            *open.counts.entry(file).or_default() += 1;
        }
    }

    /// A handle was released.
    pub(super) fn released(&self, handle: Handle) {
        let mut open = self.open();
        let Some(opening) = open.openings.remove(&handle) else { return };
        if let Some(count) = open.counts.get_mut(&opening.file) {
            *count -= 1;
            if *count == 0 {
                open.counts.remove(&opening.file);
            }
        }
    }

    /// Whether the kernel may know bytes of the file that the volume doesn't.
    pub(super) fn are_on(&self, file: Ino) -> bool {
        self.open().counts.contains_key(&file)
    }

    /// Whether a thread that closes a descriptor of this opening, which can write, is of the process
    /// that opened it. A process that a program starts closes the descriptors that it was given by
    /// the way, and says nothing about the file with that.
    pub(super) fn is_closed_by_opener(&self, handle: Handle, thread: u32) -> bool {
        let opener = self.open().openings.get(&handle).map(|opening| opening.thread);
        opener.is_some_and(|opener| opener == thread || are_of_one_process(opener, thread))
    }
}

/// See proc(5). False if either is gone, or can't be seen from here.
fn are_of_one_process(thread: u32, other: u32) -> bool {
    thread != 0 && Path::new(&format!("/proc/{thread}/task/{other}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_to_until_its_last_writer_is_gone() {
        let writers = Writers::default();
        writers.opened(Handle(1), Ino(7), 1);
        writers.opened(Handle(2), Ino(7), 1);
        writers.released(Handle(1));
        writers.released(Handle(1));
        assert!(writers.are_on(Ino(7)));
        writers.released(Handle(2));
        assert!(!writers.are_on(Ino(7)));
    }

    #[test]
    fn who_was_given_a_file_does_not_close_it() {
        let own = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("there is a cat");
        let (writers, file) = (Writers::default(), Handle(1));
        writers.opened(file, Ino(7), own);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
                writers.is_closed_by_opener(file, thread)
            });
            assert!(other.join().expect("it looks at a number"));
        });
        assert!(writers.is_closed_by_opener(file, own));
        assert!(!writers.is_closed_by_opener(file, child.id()));
        assert!(!writers.is_closed_by_opener(file, 0));
        assert!(!writers.is_closed_by_opener(Handle(2), own));
        drop(child.stdin.take());
        child.wait().expect("it ends with its input");
    }
}
