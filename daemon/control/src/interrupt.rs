//! Ctrl-C and SIGTERM, for programs without async code of their own.

use std::io;
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// Calls `then` on a thread of its own once, when Ctrl-C is pressed or SIGTERM or SIGHUP arrives.
///
/// From this call on these signals no longer end the process by themselves; a program that is
/// still there at the second one is ended by it, with exit code 130.
///
/// # Errors
/// If the signals or the thread can't be had.
pub fn on_interrupt(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    thread::Builder::new().name("kith-interrupt".into()).spawn(move || {
        let mut next = || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
        };
        next();
        then();
        next();
        std::process::exit(130);
    })?;
    Ok(())
}
