//! Starts a daemon in the background and waits until it does its work, or hears why it doesn't.

use crate::argument::Mounting;
use crate::failure::Failure;
use kith_daemon::paths::Paths;
use kith_daemon::service::FAILURE_VARIABLE;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take until it is ready: it may have a large index to look after.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a silent daemon is looked after.
const GLANCE: Duration = Duration::from_millis(100);
/// The size beyond which the log is put aside at a start.
const LOG_BYTES: u64 = 8 << 20;
/// How much of the log's end is searched for a reason.
const TAIL_BYTES: u64 = 64 << 10;

/// Starts a daemon that goes on when this program and its terminal end, and waits until it is
/// ready.
///
/// # Errors
/// Why it didn't start.
pub(crate) fn launch(paths: &Paths, mounting: &Mounting) -> Result<Child, Failure> {
    paths.make_data()?;
    paths.make_runtime()?;
    let log = Log::open(&paths.log())?;
    let ear = Ear::open(&paths.runtime)?;
    let failed = |what: &str, error: &io::Error| {
        Failure::new(format!("Kith could not be started: {what}: {error}"), "")
    };
    let program = std::env::current_exe().map_err(|error| failed("its program", &error))?;
    let output = |error| failed("its log", &error);
    let mut command = Command::new(program);
    if let Some(home) = &paths.home {
        command.arg("--home").arg(home);
    }
    command.args(["daemon", "--detached"]);
    if let Some(mount) = &mounting.mount {
        command.arg("--mount").arg(mount);
    }
    if mounting.no_mount {
        command.arg("--no-mount");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.file.try_clone().map_err(output)?)
        .stderr(log.file.try_clone().map_err(output)?)
        .env("NOTIFY_SOCKET", &ear.path)
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .current_dir("/")
        .spawn()
        .map_err(|error| failed("its process", &error))?;

    let begun = Instant::now();
    let mut reason = None;
    loop {
        match ear.listen() {
            Some(News::Ready) => return Ok(child),
            Some(News::Failed(failure)) => reason = Some(failure),
            Some(News::Other) => {}
            None => {
                if let Ok(Some(status)) = child.try_wait() {
                    // What it said last may have come between the last look and its end.
                    while let Some(news) = ear.listen() {
                        if let News::Failed(failure) = news {
                            reason = Some(failure);
                        }
                    }
                    return Err(reason.unwrap_or_else(|| log.failure(&status.to_string())));
                }
                if begun.elapsed() > PATIENCE {
                    return Err(Failure::new(
                        format!("Kith is still not ready after {} seconds", PATIENCE.as_secs()),
                        format!("See what it does in {}", paths.log().display()),
                    ));
                }
            }
        }
    }
}

enum News {
    Ready,
    Failed(Failure),
    Other,
}

/// Where the daemon tells how it goes, in systemd's notification protocol.
struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ear {
    fn open(runtime: &Path) -> Result<Ear, Failure> {
        let path = runtime.join(format!("ready-{}.sock", std::process::id()));
        let open = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = UnixDatagram::bind(&path)?;
            socket.set_read_timeout(Some(GLANCE))?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Ear { socket, path }),
            Err(error) => Err(Failure::new(
                format!("the socket {} cannot be made: {error}", path.display()),
                "",
            )),
        }
    }

    /// What was said within [`GLANCE`].
    fn listen(&self) -> Option<News> {
        let mut message = [0; 8192];
        let length = self.socket.recv(&mut message).ok()?;
        Some(understand(&String::from_utf8_lossy(&message[..length])))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // It lies in a directory of its own kind: a file that stays harms nobody.
        let _ = fs::remove_file(&self.path);
    }
}

fn understand(message: &str) -> News {
    let mut news = News::Other;
    for line in message.lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => news = News::Ready,
            Some((FAILURE_VARIABLE, text)) => {
                if let Ok(body) = serde_json::from_str::<kith_control::refusal::ErrorBody>(text) {
                    news = News::Failed(Failure::new(body.error, body.hint));
                }
            }
            _ => {}
        }
    }
    news
}

/// The daemon's log, and where in it this start begins.
struct Log {
    file: File,
    path: PathBuf,
    begin: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Log, Failure> {
        let open = || -> io::Result<Log> {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            if fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES) {
                fs::rename(path, path.with_extension("log.1"))?;
            }
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            let begin = file.metadata()?.len();
            Ok(Log { file, path: path.to_owned(), begin })
        };
        open().map_err(|error| {
            Failure::new(
                format!("the log {} cannot be written: {error}", path.display()),
                "See who owns it and whether the disk is full or read-only.",
            )
        })
    }

    /// The last line that a daemon which ended without a reason wrote.
    fn failure(&self, status: &str) -> Failure {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.begin.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let sentence = match last {
            Some(line) => format!("Kith ended ({status}): {}", line.trim()),
            None => format!("Kith ended ({status})"),
        };
        Failure::new(sentence, format!("The whole story is in {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_says_is_understood() {
        assert!(matches!(understand("STATUS=x\nREADY=1\n"), News::Ready));
        assert!(matches!(understand("WATCHDOG=1\n"), News::Other));
        assert!(matches!(understand("X_KITH_FAILURE=nonsense\n"), News::Other));
        let News::Failed(failure) = understand(
            "STATUS=y\nX_KITH_FAILURE={\"error\":\"The port is taken.\",\"hint\":\"a\"}\n",
        ) else {
            panic!("no failure")
        };
        assert_eq!(failure, Failure::new("The port is taken.", "A."));
    }

    #[test]
    fn a_large_log_is_put_aside_and_the_last_line_is_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log/daemon.log");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![b'x'; usize::try_from(LOG_BYTES).unwrap() + 1]).unwrap();
        let log = Log::open(&path).unwrap();
        assert_eq!(log.begin, 0);
        assert!(directory.path().join("log/daemon.log.1").exists());
        assert_eq!(log.failure("exit status: 1").sentence, "Kith ended (exit status: 1).");
        fs::write(&path, "first\nit broke\n\n").unwrap();
        assert_eq!(
            log.failure("exit status: 1").sentence,
            "Kith ended (exit status: 1): it broke."
        );
    }
}
