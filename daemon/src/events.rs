//! What happens while the daemon runs, told to whoever listens.

use kith_control::event::{Event, Happening};
use tokio::sync::broadcast;

/// How many events a slow listener may fall behind.
const BEHIND_MAX: usize = 1024;

/// Tells listeners what happens. Clones tell the same listeners.
#[derive(Clone)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Events(broadcast::Sender::new(BEHIND_MAX))
    }

    /// Tells what happens now.
    pub(crate) fn send(&self, what: Happening) {
        // Without a listener there is nobody to tell.
        let _ = self.0.send(Event::now(what));
    }

    /// Listens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
