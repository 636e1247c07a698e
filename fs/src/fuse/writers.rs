//! Which files the kernel may hold unwritten bytes of: those that are open for writing.

use crate::volume::{Handle, Ino};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The handles that can write, and how many each file has.
#[derive(Default)]
pub(super) struct Writers(Mutex<Open>);

#[derive(Default)]
struct Open {
    files: HashMap<Handle, Ino>,
    counts: HashMap<Ino, usize>,
}

impl Writers {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle that can write was opened.
    pub(super) fn opened(&self, handle: Handle, file: Ino) {
        let mut open = self.open();
        if open.files.insert(handle, file).is_none() {
            *open.counts.entry(file).or_default() += 1;
        }
    }

    /// A handle was released.
    pub(super) fn released(&self, handle: Handle) {
        let mut open = self.open();
        let Some(file) = open.files.remove(&handle) else { return };
        if let Some(count) = open.counts.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                open.counts.remove(&file);
            }
        }
    }

    /// Whether the kernel may know bytes of the file that the volume doesn't.
    pub(super) fn are_on(&self, file: Ino) -> bool {
        self.open().counts.contains_key(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_to_until_its_last_writer_is_gone() {
        let writers = Writers::default();
        writers.opened(Handle(1), Ino(7));
        writers.opened(Handle(2), Ino(7));
        writers.released(Handle(1));
        writers.released(Handle(1));
        assert!(writers.are_on(Ino(7)));
        writers.released(Handle(2));
        assert!(!writers.are_on(Ino(7)));
    }
}
