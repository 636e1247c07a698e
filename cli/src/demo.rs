//! `kith demo`: two devices on one machine, both mounted, for anyone to watch.

use crate::argument::Mounting;
use crate::doctor::mount_points;
use crate::failure::Failure;
use crate::launch::launch;
use crate::running::client;
use crate::screen::{DIM, GOOD, STRONG, complain, say, say_json, waiting};
use kith_control::interrupt::on_interrupt;
use kith_control::pairing::{InviteLine, Join};
use kith_daemon::paths::Paths;
use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a device may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Two devices, from their start to their end: Ctrl-C, SIGTERM, or Ctrl-D at a terminal.
pub(crate) fn run(json: bool) -> Result<(), Failure> {
    let (end, ended) = mpsc::channel();
    let interrupted = end.clone();
    on_interrupt(move || {
        let _ = interrupted.send(());
    })
    .map_err(|error| Failure::new(format!("signals cannot be received: {error}"), ""))?;

    let wait = waiting("Starting two devices", json);
    let mut scratch = Scratch::new()?;
    let shown = start(&mut scratch);
    wait.finish_and_clear();
    if let Err(failure) = shown {
        scratch.end();
        return Err(failure);
    }
    if json {
        let devices: Vec<_> = scratch.devices.iter().map(Device::facts).collect();
        say_json(&serde_json::json!({ "devices": devices }));
    } else {
        present(&scratch);
    }
    if io::stdin().is_terminal() {
        let end = end.clone();
        thread::spawn(move || {
            let mut byte = [0];
            while matches!(io::stdin().read(&mut byte), Ok(1)) {}
            let _ = end.send(());
        });
    }
    // `end` lives as long as this waits, so that only a message ends it.
    let _ = ended.recv();
    drop(end);
    if !json {
        say("");
    }
    let wait = waiting("Cleaning up", json);
    let left = scratch.end();
    wait.finish_and_clear();
    match left {
        None => Ok(()),
        Some(path) => Err(Failure::new(
            format!("{} is still mounted, so it was left there", path.display()),
            format!("`umount -l {}`, and then remove it", path.display()),
        )),
    }
}

fn start(scratch: &mut Scratch) -> Result<(), Failure> {
    let inviting = scratch.add("laptop")?;
    let joining = scratch.add("desktop")?;
    let port = client(&inviting).status()?.device.port;
    let address = format!("127.0.0.1:{}", port.unwrap_or(kith_daemon::config::DEFAULT_PORT));
    let mut lines = client(&inviting).invite()?;
    let code = match lines.next().transpose()? {
        Some(InviteLine::Code(invitation)) => invitation.code,
        other => return Err(Failure::new(format!("there was no invitation: {other:?}"), "")),
    };
    client(&joining).join(&Join { code, addresses: vec![address] })?;
    // The joined device counts only once the inviting one says so too.
    for line in lines {
        match line? {
            InviteLine::Joined { .. } => return Ok(()),
            InviteLine::Failed { error, hint } => return Err(Failure::new(error, hint)),
            _ => {}
        }
    }
    Err(Failure::new("the two devices did not meet", ""))
}

fn present(scratch: &Scratch) {
    say(&format!("{GOOD}Two devices share one folder now:{GOOD:#}\n"));
    for device in &scratch.devices {
        let mount = device.paths.default_mount.display();
        say(&format!("  {:<8} {STRONG}{mount}{STRONG:#}", device.name));
    }
    let first = &scratch.devices[0].paths;
    let second = &scratch.devices[1].paths;
    say(&format!(
        "\nTry it in another terminal:\n\n  echo hello > {}/hello\n  cat {}/hello",
        first.default_mount.display(),
        second.default_mount.display()
    ));
    if let Some(home) = &first.home {
        say(&format!("  kith --home {} status", home.display()));
    }
    say(&format!("\n{DIM}Ctrl-C ends both and removes everything.{DIM:#}"));
}

struct Device {
    name: &'static str,
    paths: Paths,
    child: Child,
}

impl Device {
    fn facts(&self) -> serde_json::Value {
        let home = self.paths.home.as_deref().map(Path::to_string_lossy);
        let mount = self.paths.default_mount.to_string_lossy();
        serde_json::json!({ "name": self.name, "home": home, "mount": mount })
    }
}

/// A directory with two installations in it.
struct Scratch {
    path: PathBuf,
    devices: Vec<Device>,
    ended: bool,
}

impl Scratch {
    fn new() -> Result<Scratch, Failure> {
        let path = std::env::temp_dir().join(format!("kith-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Failure::new(
                format!("the scratch directory {} cannot be made: {error}", path.display()),
                "Set TMPDIR to a directory with some room.",
            )
        })?;
        Ok(Scratch { path, devices: Vec::new(), ended: false })
    }

    fn add(&mut self, name: &'static str) -> Result<Paths, Failure> {
        let home = self.path.join(name);
        // They find each other by address: nobody else on the network needs to hear of them.
        let settings = format!("name = \"{name}\"\nmdns = false\n");
        fs::create_dir(&home)
            .and_then(|()| fs::write(home.join("config.toml"), settings))
            .map_err(|error| Failure::new(format!("the scratch directory: {error}"), ""))?;
        let paths = Paths::find(Some(&home))?;
        let child = launch(&paths, &Mounting::default())?;
        self.devices.push(Device { name, paths: paths.clone(), child });
        Ok(paths)
    }

    /// Stops both devices and removes everything; the mount that prevents it, if one does.
    fn end(&mut self) -> Option<PathBuf> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        for device in &self.devices {
            if let Err(error) = client(&device.paths).stop() {
                complain(&format!("{} did not hear that it is to stop: {error}", device.name));
            }
        }
        for device in &mut self.devices {
            let (tell, told) = mpsc::channel();
            let paths = device.paths.clone();
            thread::spawn(move || {
                let _ = paths.wait_until_free();
                let _ = tell.send(());
            });
            if told.recv_timeout(STOP_PATIENCE).is_err() {
                let _ = device.child.kill();
            }
            let _ = device.child.wait();
            // A runtime directory may lie elsewhere if the scratch directory's path is long.
            if !device.paths.runtime.starts_with(&self.path) {
                let _ = fs::remove_dir(&device.paths.runtime);
            }
        }
        // Removing what is mounted would remove the files in it.
        let mounted = mount_points().into_iter().map(PathBuf::from);
        let real = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        if let Some(mounted) = mounted.into_iter().find(|at| at.starts_with(&real)) {
            return Some(mounted);
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            complain(&format!("{} stays behind: {error}", self.path.display()));
        }
        None
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.end();
    }
}
