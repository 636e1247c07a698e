//! One device: the real program with a directory of its own, on a host of a lab or alone.

use crate::lab::Lab;
use crate::scratch::{self, Scratch};
use crate::tree::Tree;
use crate::{binary, pulse};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a daemon may take to start, in a debug build on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long a command may take; joining gives up by itself before.
const COMMAND: Duration = Duration::from_secs(150);
/// How long a daemon may run before the test is taken for stuck, unless the test says more.
const LIFE: Duration = Duration::from_secs(600);
/// How many of the last lines of a log are kept for a failure.
const LOG_LINES: usize = 400;

/// What stands in the log between two daemons.
const STARTED: &str = "--- started";

/// An installation of Kith. The daemon is killed and unmounted when it is dropped; if the test
/// fails, its log is printed.
#[derive(Debug)]
pub struct Device {
    name: String,
    root: PathBuf,
    mount: PathBuf,
    namespace: Option<String>,
    life: Duration,
    daemon: Option<Child>,
    watch: Option<Sender<()>>,
    log: Arc<Mutex<VecDeque<String>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// An invitation that waits for somebody.
#[derive(Debug)]
pub struct Invitation {
    /// The code to type on the other device.
    pub code: String,
    process: Child,
    lines: Receiver<String>,
}

impl Device {
    /// A device on a host of a lab, named so, with a running and mounted daemon.
    pub fn start(scratch: &Scratch, lab: &Lab, host: usize, name: &str) -> Device {
        let mut device = Device::stopped(scratch, Some((lab, host)), name);
        device.run();
        device
    }

    /// A device without a daemon yet: in a lab, or in this machine's own network.
    pub fn stopped(scratch: &Scratch, place: Option<(&Lab, usize)>, name: &str) -> Device {
        let root = scratch.path().join(name);
        let mount = root.join("Kith");
        std::fs::create_dir_all(&mount).expect("a scratch directory can be filled");
        Device {
            name: name.to_owned(),
            mount,
            root,
            namespace: place.map(|(lab, host)| lab.namespace(host)),
            life: LIFE,
            daemon: None,
            watch: None,
            log: Arc::default(),
            complaints: Arc::default(),
        }
    }

    /// Lets its daemons run longer before the test is taken for stuck.
    pub fn live_longer(&mut self, by: Duration) {
        self.life += by;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its share is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Its state, as `--home` names it.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// A path in its share.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mount.join(path)
    }

    /// A command that runs as on this device: in its network, under its name and its home.
    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                // The mounts stay shared with this process, which is to look into them.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}"));
                command.args(["--", "unshare", "--uts", "--", "sh", "-c"]);
                command.arg(r#"hostname "$0" && exec "$@""#).arg(&self.name).arg(program);
                command
            }
        };
        command.env("HOME", &self.root);
        for inherited in ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(inherited);
        }
        for inherited in ["XDG_RUNTIME_DIR", "KITH_HOME", "NOTIFY_SOCKET", "LISTEN_FDS"] {
            command.env_remove(inherited);
        }
        command.stdin(Stdio::null());
        command
    }

    /// `kith --home …` in this device's network, with arguments to be added.
    pub fn kith(&self) -> Command {
        let mut command = self.command(binary::kith());
        command.arg("--home").arg(self.home());
        command
    }

    /// The same for what only talks to the running daemon, which needs no network.
    fn client(&self) -> Command {
        let mut command = Command::new(binary::kith());
        command.arg("--home").arg(self.home()).env("HOME", &self.root).env_remove("KITH_HOME");
        command.stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it answers and its share is mounted.
    ///
    /// # Panics
    /// If it isn't ready in time.
    pub fn run(&mut self) {
        self.spawn();
        self.ready();
    }

    /// Starts the daemon, and doesn't wait for it.
    pub fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let mut command = self.kith();
        command.arg("daemon").arg("--mount").arg(&self.mount);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.note(STARTED);
        let mut daemon = command.spawn().expect("the daemon can be started");
        for stream in [
            daemon.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            daemon.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ] {
            let (log, complaints) = (Arc::clone(&self.log), Arc::clone(&self.complaints));
            let stream = stream.expect("the daemon's output is piped");
            std::thread::spawn(move || follow(stream, &log, &complaints));
        }
        self.watch = Some(watch(Pid::from_child(&daemon), &self.name, self.life));
        self.daemon = Some(daemon);
    }

    /// Waits until the daemon answers and its share is mounted.
    ///
    /// # Panics
    /// If it isn't in time, or ends before.
    pub fn ready(&mut self) {
        let daemon = self.daemon.as_mut().expect("the daemon was started");
        let mut ended = None;
        pulse::until(START, &format!("{} is ready", self.name), || {
            ended = daemon.try_wait().expect("it is our child");
            if ended.is_some() || scratch::is_mounted(&self.mount) {
                return Ok(());
            }
            Err("it is not mounted".into())
        });
        if let Some(status) = ended {
            self.daemon = None;
            panic!("the daemon of {} ended with {status}:\n{}", self.name, self.log_tail());
        }
        pulse::until(START, &format!("{} answers", self.name), || self.status().map(drop));
    }

    /// The daemon's process id.
    pub fn process(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().expect("the daemon runs"))
    }

    fn take(&mut self) -> Child {
        self.watch = None;
        self.daemon.take().expect("the daemon runs")
    }

    /// Ends the daemon as a power cut would end it.
    pub fn kill(&mut self) {
        let mut daemon = self.take();
        daemon.kill().expect("it is our child");
        daemon.wait().expect("it is our child");
        self.note("--- killed");
    }

    /// Asks the daemon to end, and says how it did.
    ///
    /// # Panics
    /// If it doesn't within `patience`.
    pub fn terminate(&mut self, patience: Duration) -> ExitStatus {
        let daemon = self.take();
        self.note("--- terminated");
        kill_process(Pid::from_child(&daemon), Signal::TERM).expect("it is our child");
        self.daemon = Some(daemon);
        self.ended(patience)
    }

    /// Waits until the daemon ends by itself.
    ///
    /// # Panics
    /// If it doesn't within `patience`.
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let mut daemon = self.take();
        let Some(status) = wait(&mut daemon, patience) else {
            self.daemon = Some(daemon);
            panic!("{} did not end within {patience:?}", self.name);
        };
        status
    }

    /// Runs a command of Kith to its end.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn ask(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.client();
        command.args(arguments);
        self.outcome(command, COMMAND)
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it takes longer than `patience`.
    pub fn outcome(&self, mut command: Command, patience: Duration) -> Outcome {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let stdout = scope.spawn(move || all_of(stdout));
            let stderr = scope.spawn(move || all_of(stderr));
            let ended = wait(&mut child, patience);
            if ended.is_none() {
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
            }
            let stdout = stdout.join().expect("reading doesn't panic");
            let stderr = stderr.join().expect("reading doesn't panic");
            let Some(status) = ended else {
                panic!("{command:?} took more than {patience:?}: {stdout}{stderr}");
            };
            Outcome { code: status.code(), stdout, stderr }
        })
    }

    /// What `kith status --json` prints.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn status(&self) -> Result<Value, String> {
        let outcome = self.ask(&["status", "--json"]);
        if outcome.code != Some(0) {
            return Err(format!("status ended with {outcome:?}"));
        }
        serde_json::from_str(&outcome.stdout).map_err(|error| format!("{error}: {outcome:?}"))
    }

    /// The first share of the status, and how many devices are connected.
    ///
    /// # Errors
    /// What the status command says where it fails.
    pub fn share(&self) -> Result<(Value, usize), String> {
        let status = self.status()?;
        let devices = status["devices"].as_array().map_or(&[][..], Vec::as_slice);
        let connected = devices.iter().filter(|device| device["connected"] == true).count();
        Ok((status["shares"][0].clone(), connected))
    }

    /// Waits until it says that all is in sync: alone, that all is published.
    ///
    /// # Panics
    /// If it doesn't within `patience`.
    pub fn synced(&self, patience: Duration) {
        pulse::until(patience, &format!("{} is in sync", self.name), || {
            let (share, _) = self.share()?;
            if share["state"] == "synced" { Ok(()) } else { Err(share.to_string()) }
        });
    }

    /// The bytes that are still missing here.
    ///
    /// # Errors
    /// What the status command says where it fails.
    pub fn missing_bytes(&self) -> Result<u64, String> {
        let (share, _) = self.share()?;
        share["missing_bytes"].as_u64().ok_or_else(|| format!("no missing_bytes in {share}"))
    }

    /// Opens an invitation.
    ///
    /// # Panics
    /// If its first line is not a code.
    pub fn invite(&self) -> Invitation {
        let mut command = self.client();
        command.args(["invite", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("kith can be started");
        let (sender, lines) = channel();
        let stdout = process.stdout.take().expect("it is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _nobody_waits = sender.send(line);
                pulse::beat();
            }
        });
        let (log, complaints) = (Arc::clone(&self.log), Arc::clone(&self.complaints));
        let stderr = process.stderr.take().expect("it is piped");
        std::thread::spawn(move || follow(Box::new(stderr), &log, &complaints));
        let first = lines.recv_timeout(START).expect("an invitation prints its code at once");
        let first: Value = serde_json::from_str(&first).expect("the first line is JSON");
        let code = first["code"].as_str().expect("the first line has a code").to_owned();
        Invitation { code, process, lines }
    }

    /// Joins a circle by its code.
    pub fn join(&self, code: &str) -> Outcome {
        self.ask(&["join", code, "--json"])
    }

    /// Pairs with a device that invites, and waits until both are connected.
    ///
    /// # Panics
    /// If either side says anything but that it worked.
    pub fn pair(&self, inviter: &Device) {
        let mut invitation = inviter.invite();
        let joined = self.join(&invitation.code);
        assert_eq!(joined.code, Some(0), "{} joins {}: {joined:?}", self.name, inviter.name);
        let heard: Value = serde_json::from_str(&joined.stdout).expect("join prints JSON");
        assert!(heard["device"].is_object() || heard["device"].is_string(), "{heard}");
        let second = invitation.next_line(COMMAND);
        assert!(second["joined"]["id"].is_string(), "{second}");
        assert_eq!(second["joined"]["name"], *self.name, "{second}");
        assert_eq!(invitation.end(COMMAND), Some(0));
    }

    /// Asks for all events, one JSON value a line, until the receiver is dropped or the daemon ends.
    pub fn events(&self) -> Receiver<String> {
        let mut command = self.client();
        command.args(["events", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("kith can be started");
        let (sender, lines) = channel();
        let stdout = process.stdout.take().expect("it is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                pulse::beat();
                if sender.send(line).is_err() {
                    break;
                }
            }
            let _ended_already = process.kill();
            let _reaped = process.wait();
        });
        lines
    }

    /// The tree that it shows.
    ///
    /// # Errors
    /// The first thing that can't be read.
    pub fn tree(&self) -> Result<Tree, String> {
        Tree::read(&self.mount)
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        let log = self.log.lock().expect("nothing panics while it notes");
        log.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Whether a line of the daemon's log has a text in it.
    pub fn logged(&self, text: &str) -> bool {
        let log = self.log.lock().expect("nothing panics while it notes");
        log.iter().any(|line| line.contains(text))
    }

    /// The lines that the daemon has logged since it was last started.
    pub fn lines_since_start(&self) -> Vec<String> {
        let log = self.log.lock().expect("nothing panics while it notes");
        let since = log.iter().rev().take_while(|line| *line != STARTED);
        since.cloned().collect()
    }

    /// The lines of the daemon's log that are errors or panics.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().expect("nothing panics while it notes").clone()
    }

    fn note(&self, line: &str) {
        self.log.lock().expect("nothing panics while it notes").push_back(line.to_owned());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ended_already = daemon.kill();
            let _reaped = daemon.wait();
        }
        scratch::unmount_below(&self.mount);
        if std::thread::panicking() {
            crate::notice::say(&format!("=== log of {}\n{}===", self.name, self.log_tail()));
        }
    }
}

impl Invitation {
    /// Waits for the next line after the code.
    ///
    /// # Panics
    /// If none comes within `patience`, or it is not JSON.
    pub fn next_line(&mut self, patience: Duration) -> Value {
        match self.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line).expect("every line is JSON"),
            Err(RecvTimeoutError::Timeout) => panic!("nothing was said within {patience:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the invitation ended"),
        }
    }

    /// Waits for its end, and answers the exit code.
    ///
    /// # Panics
    /// If it doesn't end within `patience`.
    pub fn end(&mut self, patience: Duration) -> Option<i32> {
        wait(&mut self.process, patience)
            .unwrap_or_else(|| panic!("the invitation did not end within {patience:?}"))
            .code()
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Waits until all devices are connected with `peers` others each, say that they are in sync, and
/// show the same tree; answers it.
///
/// # Panics
/// If they don't within `patience`; the message says what is missing.
pub fn settled(devices: &[(&Device, usize)], patience: Duration) -> Tree {
    let mut agreed = None;
    let names: Vec<&str> = devices.iter().map(|(device, _)| device.name()).collect();
    pulse::until(patience, &format!("{} show the same tree", names.join(", ")), || {
        for (device, peers) in devices {
            let (share, connected) = device.share()?;
            if connected != *peers || share["state"] != "synced" || share["missing_bytes"] != 0 {
                return Err(format!("{}: {connected} connected, {share}", device.name));
            }
        }
        let first = devices[0].0.tree()?;
        for (device, _) in &devices[1..] {
            let tree = device.tree()?;
            let differences = first.differences(&tree, 12);
            if !differences.is_empty() {
                let differences = differences.join("\n  ");
                return Err(format!("{} <> {}:\n  {differences}", names[0], device.name));
            }
        }
        agreed = Some(first);
        Ok(())
    });
    agreed.expect("the wait ended because they agreed")
}

/// Waits for a child's end; `None` if it has not come in time.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let process =
        rustix::process::pidfd_open(Pid::from_child(child), rustix::process::PidfdFlags::empty())
            .expect("it is our child, and not yet waited for");
    let mut waiting = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    let patience = patience.try_into().expect("patience is a time a kernel can count");
    match rustix::event::poll(&mut waiting, Some(&patience)) {
        Ok(0) => None,
        Ok(_) => Some(child.wait().expect("it is our child")),
        Err(error) => panic!("the child can't be waited for: {error}"),
    }
}

/// Kills a daemon that a test has not ended within its time, so that a test which waits in the
/// daemon's mount fails instead of waiting for ever. Dropping the sender ends the watch.
fn watch(daemon: Pid, name: &str, life: Duration) -> Sender<()> {
    let (sender, ended) = channel();
    let name = name.to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(life) == Err(RecvTimeoutError::Timeout) {
            crate::notice::say(&format!("{name} was killed: its test takes longer than {life:?}"));
            let _ended_already = kill_process(daemon, Signal::KILL);
        }
    });
    sender
}

fn all_of(stream: Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut text).expect("a pipe can be read");
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Keeps the last lines of a log and all that are bad, and wakes whoever waits.
fn follow(
    stream: Box<dyn Read + Send>,
    log: &Mutex<VecDeque<String>>,
    complaints: &Mutex<Vec<String>>,
) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&line).into_owned();
        if text.contains(" ERROR ") || text.contains("panicked at") {
            complaints.lock().expect("nothing panics while it notes").push(text.clone());
        }
        let mut log = log.lock().expect("nothing panics while it notes");
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(text);
        drop(log);
        pulse::beat();
    }
}
