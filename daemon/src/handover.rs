//! The end of one daemon that is the beginning of the next: the program is replaced in place, and the
//! mount stays, with all that is open in it.
//!
//! The process keeps its number, and two descriptors: the connection to the kernel, and a file in memory
//! that says what is open.

use crate::share::OpenLeft;
use kith_fs::{KeptMount, inherit};
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// The option that tells a daemon which descriptors it was left.
pub const OPTION: &str = "--handover";
/// The form of what is said. A daemon that doesn't know it mounts anew.
const FORM: u32 = 1;
/// What the kernel adds to the name of a program that was replaced while it ran.
const DELETED: &[u8] = b" (deleted)";

/// What one daemon leaves to the next.
pub struct Handover {
    pub(crate) mount: KeptMount,
    pub(crate) connection: OwnedFd,
    pub(crate) open: OpenLeft,
}

/// The descriptors that a daemon was left, as its command line says them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptors {
    told: RawFd,
    connection: RawFd,
}

impl FromStr for Descriptors {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once(',');
        let number = |text: &str| text.parse().ok().filter(|number| *number > 2);
        let numbers = numbers.and_then(|(told, connection)| number(told).zip(number(connection)));
        let (told, connection) = numbers.ok_or("they are two descriptors")?;
        if told == connection {
            return Err("they are two descriptors");
        }
        Ok(Descriptors { told, connection })
    }
}

#[derive(Serialize, Deserialize)]
struct Told {
    form: u32,
    mount: KeptMount,
    open: OpenLeft,
}

fn understand(mut file: File) -> io::Result<Told> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    let told: Told = serde_json::from_slice(&text)?;
    if told.form == FORM {
        Ok(told)
    } else {
        Err(io::Error::other("it is of another version of Kith"))
    }
}

impl Handover {
    /// Takes what the daemon before left in this process. To be called once. Without it the mount is
    /// dead, and the next one takes its place.
    #[must_use]
    pub fn take(descriptors: Descriptors) -> Option<Handover> {
        let (told, connection) = (inherit(descriptors.told), inherit(descriptors.connection));
        let understood = told.and_then(|told| understand(File::from(told)));
        match understood.and_then(|told| Ok((told, connection?))) {
            Ok((Told { mount, open, .. }, connection)) => {
                Some(Handover { mount, connection, open })
            }
            Err(error) => {
                tracing::error!(%error, "what the last daemon left can't be used");
                None
            }
        }
    }

    /// Takes the mount away, as nobody will go on with it.
    pub(crate) fn give_up(self) {
        self.mount.take_away();
    }

    /// Leaves everything to whoever this process becomes, and answers the option that says so.
    fn leave(self) -> io::Result<String> {
        let Handover { mount, connection, open } = self;
        let told = Told { form: FORM, mount, open };
        let memory = rustix::fs::memfd_create("kith-handover", MemfdFlags::CLOEXEC)?;
        File::from(memory.try_clone()?).write_all(&serde_json::to_vec(&told)?)?;
        for descriptor in [&memory, &connection] {
            rustix::io::fcntl_setfd(descriptor.as_fd(), FdFlags::empty())?;
        }
        // From here on they are this process's, whatever it runs.
        Ok(format!("{OPTION}={},{}", memory.into_raw_fd(), connection.into_raw_fd()))
    }
}

/// Becomes the next daemon: the program that is in this one's place now, with its arguments. Returns
/// only if that fails.
///
/// # Errors
/// Why no program could be started. Nobody answers for the mount then.
pub(crate) fn start_again(handover: Option<Handover>) -> io::Result<Infallible> {
    let option = handover.map(Handover::leave).transpose()?;
    let arguments = arguments(option);
    let start = |program: &Path| Command::new(program).args(&arguments).exec();
    let error = start(&program()?);
    tracing::error!(%error, "the program can't be started again; the one that ran goes on");
    Err(start(Path::new("/proc/self/exe")))
}

/// What this daemon was started with, but for what it was left.
fn arguments(option: Option<String>) -> Vec<OsString> {
    let own = std::env::args_os().skip(1);
    let ours = |argument: &OsString| {
        let rest = argument.as_bytes().strip_prefix(OPTION.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"="))
    };
    own.filter(|argument| !ours(argument)).chain(option.map(OsString::from)).collect()
}

/// Where this program is, or the one that has taken its place.
fn program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    Ok(place_of_replaced(&running).unwrap_or(running))
}

/// Where the program was that a process runs, if it is there no more, as after an upgrade. `running` is
/// what `/proc/PID/exe` leads to: see proc(5).
#[must_use]
pub fn place_of_replaced(running: &Path) -> Option<PathBuf> {
    let place = running.as_os_str().as_bytes().strip_suffix(DELETED)?;
    if running.exists() { None } else { Some(OsString::from_vec(place.to_vec()).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_replaced_if_the_kernel_says_so_and_it_is_not_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, odd) = (directory.path().join("kith"), directory.path().join("kith (deleted)"));
        assert_eq!(place_of_replaced(&plain), None);
        assert_eq!(place_of_replaced(&odd), Some(plain));
        std::fs::write(&odd, "").unwrap();
        assert_eq!(place_of_replaced(&odd), None);
    }

    #[test]
    fn descriptors_are_two_and_not_those_that_everybody_has() {
        assert_eq!("7,9".parse(), Ok(Descriptors { told: 7, connection: 9 }));
        for text in ["", "7", "7,", ",9", "7,9,1", "2,9", "7,0", "-1,9", "a,b", "7,7", " 7,9"] {
            assert!(text.parse::<Descriptors>().is_err(), "{text:?}");
        }
    }
}
