//! A mount that goes on in another process: what that one has to know, and how it takes the kernel's
//! connection up.

use super::layer::Layer;
use super::listing::OpenListings;
use super::unsafe_calls::put_in_place;
use super::writers::OpenWriter;
use fuser::{Config, InitFlags, Session, SessionACL};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// A mount that nobody answers for, until the process that is told of it takes it up. It has to come
/// with the connection to the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptMount {
    /// Where it is, without symbolic links.
    pub point: PathBuf,
    /// The user and group that the share's person is shown as.
    pub owner: (u32, u32),
    /// Whether it was mounted without the helper.
    pub direct: bool,
    /// The number of its device.
    pub device: Option<(u32, u32)>,
    /// What was agreed with the kernel, as bits of the protocol.
    pub capabilities: u64,
    /// The kernel's minor version of the protocol.
    pub minor: u32,
    /// The open directories.
    pub listings: OpenListings,
    /// The handles that can write.
    pub writers: Vec<OpenWriter>,
}

/// Why a mount can't go on in another process.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The kernel is older than 6.9.
    #[error("the kernel doesn't ask again for what one process has left unanswered")]
    TooOld,
    /// What the kernel held back wasn't written in time, or requests took too long.
    #[error("programs keep the folder busy")]
    Busy,
    /// The threads of the mount have ended.
    #[error("the mount has ended")]
    Ended,
}

/// The operation code of `FUSE_INIT`.
const INIT: u32 = 26;
/// The major version of the protocol.
const MAJOR: u32 = 7;
/// The code of `FUSE_NOTIFY_RESEND`.
const RESEND: i32 = 7;
/// What the kernel may have offered to read ahead; the answer to this goes nowhere.
const READ_AHEAD_BYTES: u32 = 1 << 20;
/// Room for the answer to an INIT: a head of 16 bytes and a body of 64.
const ANSWER_MAX_BYTES: usize = 256;

/// A session over a connection that is agreed on already, and whose unanswered requests it is asked
/// anew.
///
/// The library insists on an INIT, which the kernel sends once in the life of a connection. So it
/// is given one over a socket, whose place the connection takes after that.
pub(super) fn resume(
    layer: Layer,
    config: Config,
    kept: &KeptMount,
    connection: &OwnedFd,
) -> io::Result<Session<Layer>> {
    let (here, there) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::write(&here, &init(kept))?;
    let session = Session::from_fd(layer, there, SessionACL::All, config)?;
    let mut answer = [0; ANSWER_MAX_BYTES];
    rustix::io::read(&here, &mut answer)?;
    put_in_place(connection.as_fd(), session.as_fd())?;
    rustix::io::write(connection, &resend())?;
    Ok(session)
}

/// `struct fuse_in_header` and `struct fuse_init_in`, from `linux/fuse.h`.
fn init(kept: &KeptMount) -> Vec<u8> {
    // What is agreed is all that the kernel seems to offer; and it can do this, or nothing were kept.
    let implied = InitFlags::FUSE_INIT_EXT | InitFlags::FUSE_HAS_RESEND;
    let bits = kept.capabilities | implied.bits();
    let (low, high) = (bits as u32, (bits >> 32) as u32);
    let mut body = vec![MAJOR, kept.minor, READ_AHEAD_BYTES, low, high];
    body.resize(16, 0);
    let len_bytes = 40 + 4 * body.len() as u32;
    let mut frame = Vec::new();
    frame.extend([len_bytes, INIT].into_iter().flat_map(u32::to_ne_bytes));
    // The request's number and the node.
    frame.extend([1_u64, 0].into_iter().flat_map(u64::to_ne_bytes));
    // User, group, process, and the length of extensions.
    frame.extend([0_u32; 4].into_iter().chain(body).flat_map(u32::to_ne_bytes));
    frame
}

/// `struct fuse_out_header` of a notification without a body.
fn resend() -> Vec<u8> {
    let mut frame = 16_u32.to_ne_bytes().to_vec();
    frame.extend(RESEND.to_ne_bytes());
    frame.extend(0_u64.to_ne_bytes());
    frame
}
