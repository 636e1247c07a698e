//! The two ways to the kernel's mount table: root's own, and `fusermount3` for everybody else.

use super::mount_error::MountError;
use super::mount_table::KIND;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const HELPER: &str = "fusermount3";
/// How long the helper may take to mount.
const HELPER_PATIENCE: Duration = Duration::from_secs(10);

/// Who mounts and unmounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// This process itself.
    Direct,
    /// The setuid helper.
    Helper,
}

/// What the kernel is told about a mount.
pub(super) struct Request<'a> {
    /// Where, without symbolic links.
    pub(super) point: &'a Path,
    /// What stands before it in `df`: letters, digits and `.-_` only.
    pub(super) name: &'a str,
    /// The user and group that own it.
    pub(super) owner: (u32, u32),
    /// Whether other users may look in; the kernel checks their permissions.
    pub(super) allow_other: bool,
}

impl Route {
    /// The way that is open to this process.
    pub(super) fn open() -> Route {
        if rustix::process::geteuid().is_root() { Route::Direct } else { Route::Helper }
    }

    /// Mounts; answers the connection to the kernel, and the way that the mount went.
    pub(super) fn attach(self, request: &Request<'_>) -> Result<(OwnedFd, Route), MountError> {
        match self {
            Route::Helper => Ok((with_helper(request)?, Route::Helper)),
            Route::Direct => match directly(request) {
                // Root in a container may lack the right, and have the helper.
                Err(MountError::NotPermitted { .. }) => Ok((with_helper(request)?, Route::Helper)),
                mounted => Ok((mounted?, Route::Direct)),
            },
        }
    }

    /// Unmounts, if nobody works in it.
    pub(super) fn detach(self, point: &Path) -> io::Result<()> {
        match self {
            Route::Direct => Ok(rustix::mount::unmount(point, UnmountFlags::NOFOLLOW)?),
            Route::Helper => run_helper(&["-u", "-q"], point),
        }
    }

    /// Takes the mount out of the tree whoever works in it, and if `forced` and possible fails
    /// whatever is under way in it.
    pub(super) fn detach_busy(self, point: &Path, forced: bool) -> io::Result<()> {
        match self {
            Route::Direct => {
                let force = if forced { UnmountFlags::FORCE } else { UnmountFlags::empty() };
                let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | force;
                Ok(rustix::mount::unmount(point, flags)?)
            }
            Route::Helper => run_helper(&["-u", "-q", "-z"], point),
        }
    }
}

fn open_device() -> Result<OwnedFd, MountError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => MountError::NoDevice,
        errno => MountError::Failed(errno.into()),
    })
}

fn directly(request: &Request<'_>) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let (user, group) = request.owner;
    let mut options = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions",
        device.as_raw_fd()
    );
    if request.allow_other {
        options.push_str(",allow_other");
    }
    let options = CString::new(options).expect("numbers and words hold no NUL");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    match rustix::mount::mount(request.name, request.point, KIND, flags, options.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::NODEV) => Err(MountError::NoDevice),
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => {
            Err(MountError::NotPermitted { point: request.point.into(), reason: errno.to_string() })
        }
        Err(errno) => Err(MountError::Failed(errno.into())),
    }
}

/// The helper mounts, and sends the connection over the socket that it finds as its input.
fn with_helper(request: &Request<'_>) -> Result<OwnedFd, MountError> {
    let (here, there) = UnixStream::pair().map_err(MountError::Failed)?;
    here.set_read_timeout(Some(HELPER_PATIENCE)).map_err(MountError::Failed)?;
    let mut options =
        format!("rw,nosuid,nodev,default_permissions,subtype=kith,fsname={}", request.name);
    if request.allow_other {
        options.push_str(",allow_other");
    }
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(options).arg("--").arg(request.point);
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(there));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let spawned = command.spawn();
    // The command holds the other end, and its closing is how a failure is noticed.
    drop(command);
    let helper = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::NoHelper,
        _ => MountError::Failed(error),
    })?;
    let received = receive_descriptor(&here);
    drop(here);
    let output = helper.wait_with_output().map_err(MountError::Failed)?;
    match received {
        Ok(Some(device)) => Ok(device),
        Ok(None) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = said.trim().trim_start_matches("fusermount3: ").to_owned();
            if reason.contains("device not found") || reason.contains("modprobe") {
                Err(MountError::NoDevice)
            } else if reason.contains("failed to open /dev/fuse") {
                Err(MountError::DeviceClosed)
            } else {
                Err(MountError::NotPermitted { point: request.point.into(), reason })
            }
        }
        Err(error) => Err(MountError::Failed(error)),
    }
}

/// The descriptor that comes over the socket; `None` if it closes without one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => break,
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

fn run_helper(arguments: &[&str], point: &Path) -> io::Result<()> {
    let mut command = Command::new(HELPER);
    command.args(arguments).arg("--").arg(point);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status()?.success() {
        Ok(())
    } else {
        Err(io::Error::other("fusermount3 could not unmount it"))
    }
}
