//! What is done to descriptors that has no safe form: to take one over that another program image
//! left open, to replace the file behind one that somebody else owns, and to leave all of them.
#![expect(
    unsafe_code,
    reason = "rustix has none of these calls: they are about numbers, not owners"
)]

use rustix::io::FdFlags;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes over a descriptor that was left open for this process over an `exec`, and keeps it from
/// the next. To be called once for a number, and for none that this process has opened itself.
///
/// # Errors
/// If nothing is open under that number, or it is one of the three that every process has.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number isn't -1, and the borrow ends in this function; whether anything is open
    // under it is what the call asks.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and by the caller's promise nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts the file behind `descriptor` into the place of the one behind `place`, whose owner goes on
/// with it under the same number.
///
/// # Errors
/// As `dup2(2)`.
pub(super) fn put_in_place(descriptor: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the number is open as long as `place` is borrowed, and is never closed from here:
    // its owner stays its only owner.
    let mut owned = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(place.as_raw_fd()) });
    Ok(rustix::io::dup3(descriptor, &mut owned, rustix::io::DupFlags::CLOEXEC)?)
}

/// Leaves all descriptors of the process but the first three: this thread has a table of its own from
/// now on. What it opens it must close, and it must not touch, or drop, what others have opened.
///
/// A thread that calls the mount needs this. If the process is killed, nobody answers the thread, and
/// it can't end; and as long as it shared the descriptors, it would keep the connection to the
/// kernel open, whose end is what would let it go.
///
/// Before Linux 5.9 the table stays shared.
pub(super) fn leave_descriptors() {
    // SAFETY: it takes three numbers. Unsharing closes nothing that anybody else sees.
    let left =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if left != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "a thread keeps its descriptors");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn the_owner_goes_on_with_the_other_file() {
        let (mut one, mut other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        put_in_place(other.as_fd(), one.as_fd()).unwrap();
        one.write_all(b"abc").unwrap();
        other.rewind().unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn who_leaves_the_descriptors_closes_them_for_nobody_else() {
        let mut file = tempfile::tempfile().unwrap();
        let number = file.as_raw_fd();
        let open = move || std::fs::read_link(format!("/proc/thread-self/fd/{number}")).is_ok();
        let left = std::thread::spawn(move || {
            let before = open();
            leave_descriptors();
            (before, open())
        });
        assert_eq!(left.join().unwrap(), (true, false));
        file.write_all(b"abc").unwrap();
    }

    #[test]
    fn what_is_not_open_can_not_be_taken_over() {
        for number in [-1, 0, 2, 1_000_000] {
            assert!(inherit(number).is_err(), "{number}");
        }
        let left = tempfile::tempfile().unwrap().into_raw_fd();
        let mut file = File::from(inherit(left).unwrap());
        assert_eq!(file.as_raw_fd(), left);
        file.write_all(b"abc").unwrap();
    }
}
