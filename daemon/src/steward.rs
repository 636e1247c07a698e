//! What the control server asks of the daemon.

use kith_control::diagnosis::DoctorReport;
use kith_control::event::Event;
use kith_control::pairing::{Invitation, InviteLine, Joined};
use kith_control::status::{DeviceList, DeviceRef, MassChange, ShareStatus, Status};
use kith_core::id::DeviceId;
use std::pin::Pin;
use tokio::sync::{broadcast, mpsc};

/// Looks after one device's daemon on behalf of the person who asks through the control API.
///
/// All methods but [`Steward::join`] answer from what this device knows, without waiting for
/// another one; each is called on a thread where it may use the disk.
pub trait Steward: Send + Sync + 'static {
    /// This device, its shares, and the others as it sees them.
    ///
    /// # Errors
    /// If the index can't be read.
    fn status(&self) -> Result<Status, ControlError>;

    /// The devices of the circle, this one first.
    fn devices(&self) -> DeviceList;

    /// The shares, as [`Steward::status`] shows them.
    ///
    /// # Errors
    /// If the index can't be read.
    fn shares(&self) -> Result<Vec<ShareStatus>, ControlError>;

    /// Opens an invitation. It ends when the stream is dropped.
    ///
    /// # Errors
    /// If another invitation is open, or there is no network to be reached on.
    fn invite(&self) -> Result<InviteStream, ControlError>;

    /// Joins the circle of the device that shows `code`. `addresses` are `HOST:PORT`, checked for
    /// their form; if there are none, the device is looked for on the local network.
    ///
    /// The call is bounded in time by itself (under two minutes). Dropping the future gives up.
    fn join<'a>(&'a self, code: &'a str, addresses: &'a [String]) -> Joining<'a>;

    /// Gives a device of the circle another name, checked for its form.
    ///
    /// # Errors
    /// If there is no such device, or it can't be written down.
    fn rename_device(&self, id: DeviceId, name: &str) -> Result<DeviceRef, ControlError>;

    /// Removes a device from the circle for good.
    ///
    /// # Errors
    /// If there is no such device, it is this one, or it can't be written down.
    fn remove_device(&self, id: DeviceId) -> Result<DeviceRef, ControlError>;

    /// Notes that a person meant the mass changes of the devices called `device`, or all of them.
    /// Answers those that were waiting for that; none is no failure.
    ///
    /// # Errors
    /// If the index fails.
    fn mean(&self, device: Option<&str>) -> Result<Vec<MassChange>, ControlError>;

    /// What happens from now on. A receiver that is too slow loses the oldest events, and the
    /// server tells its client how many.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// What the daemon finds when it looks at itself.
    fn doctor(&self) -> DoctorReport;

    /// Begins to stop the daemon; returns at once.
    fn stop(&self);

    /// The same, and lets the program that is in its place then go on with the mount.
    fn start_again(&self);
}

/// A join that is under way.
pub type Joining<'a> = Pin<Box<dyn Future<Output = Result<Joined, ControlError>> + Send + 'a>>;

/// An open invitation: dropping it withdraws the code.
#[derive(Debug)]
pub struct InviteStream {
    /// The code, and where the other device can find this one.
    pub invitation: Invitation,
    /// What becomes of it. The last line is [`InviteLine::Joined`] or [`InviteLine::Failed`];
    /// [`InviteLine::Code`] is never sent. Its closing tells the sender that nobody waits any more.
    pub outcome: mpsc::Receiver<InviteLine>,
}

/// Why something was not done, which decides the HTTP status of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlErrorKind {
    /// What was asked for has no meaning. 400.
    Invalid,
    /// There is no such thing. 404.
    NotFound,
    /// It can't be done as things are. 409.
    Refused,
    /// The other device can't be reached, or doesn't do its part. 502.
    Peer,
    /// This device's disk or system failed. 500.
    Internal,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct ControlError {
    /// What sort of failure it is.
    pub kind: ControlErrorKind,
    /// What happened, in one line.
    pub sentence: String,
    /// What to try next, in one line; empty if there is nothing to add.
    pub hint: String,
}

impl ControlError {
    /// A failure, and what to try next.
    #[must_use]
    pub fn new(
        kind: ControlErrorKind,
        sentence: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        ControlError { kind, sentence: sentence.into(), hint: hint.into() }
    }
}
