//! How a thread that has left the descriptors of its process asks for what needs them.

use crate::volume::Volume;
use fuser::Notifier;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

type Question = Box<dyn FnOnce(&dyn Volume, &Notifier) + Send>;

/// Where such a thread asks. It waits for each answer, and can be killed while it does.
pub(super) struct Home(Sender<Question>);

/// What is asked, for a thread that has all descriptors.
pub(super) struct Asked(Receiver<Question>);

impl Home {
    pub(super) fn new() -> (Home, Asked) {
        let (ask, asked) = channel();
        (Home(ask), Asked(asked))
    }

    /// Lets a question be answered. `None` if nobody is there to do so any more.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Volume, &Notifier) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told): (SyncSender<T>, _) = sync_channel(1);
        let question: Question = Box::new(move |volume, notifier| {
            // Whoever asked waits for it.
            let _ = tell.send(question(volume, notifier));
        });
        self.0.send(question).ok()?;
        told.recv().ok()
    }
}

impl Asked {
    /// Answers until nobody is left who could ask.
    pub(super) fn answer(self, volume: &dyn Volume, notifier: &Notifier) {
        for question in self.0 {
            question(volume, notifier);
        }
    }
}
