//! Serves the control API on a thread of its own until it is told to stop.

use super::route::router;
use super::socket::{ControlSocket, OwnListener, SocketFile};
use crate::steward::Steward;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// How long answers that are under way may take once the server is told to stop.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// The running control server.
#[derive(Debug)]
pub struct ControlServer {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Answers on `socket` with what `steward` says.
    ///
    /// # Errors
    /// If the system gives no thread or no event queue.
    pub fn start(socket: ControlSocket, steward: Arc<dyn Steward>) -> io::Result<ControlServer> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopping) = watch::channel(false);
        let (listener, file) = socket.split();
        let listener = {
            let _guard = runtime.enter();
            OwnListener(UnixListener::from_std(listener)?)
        };
        let thread = thread::Builder::new()
            .name("kith-control".into())
            .spawn(move || serve(runtime, listener, &file, steward, stopping))?;
        Ok(ControlServer { stop, thread: Some(thread) })
    }

    /// Ends all answers, within [`STOP_GRACE`], and removes the socket.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control server ended in a panic");
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(
    runtime: Runtime,
    listener: OwnListener,
    _file: &SocketFile,
    steward: Arc<dyn Steward>,
    mut stopping: watch::Receiver<bool>,
) {
    let router = router(steward, stopping.clone());
    runtime.block_on(async {
        let mut told = stopping.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is as good as being told.
            let _ = told.wait_for(|&stop| stop).await;
        });
        let late = async {
            let _ = stopping.wait_for(|&stop| stop).await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            ended = server => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the control server ended");
                }
            }
            () = late => tracing::debug!("answers under way were cut off"),
        }
    });
    // A blocking call that hangs must not hold the daemon's end up.
    runtime.shutdown_background();
}
