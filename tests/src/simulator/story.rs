//! What happens in a simulation, in words, for whoever looks for the cause of a failure.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Adds a line, if anybody listens on this thread.
pub(super) fn tell(line: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            lines.push(line());
        }
    });
}

/// Whether anybody listens on this thread.
pub(super) fn is_heard() -> bool {
    LINES.with_borrow(Option::is_some)
}

/// Everything that is told on this thread while `work` is done.
pub(super) fn listen<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    LINES.set(Some(Vec::new()));
    let result = work();
    (result, LINES.take().unwrap_or_default())
}
