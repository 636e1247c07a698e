//! The three devices that histories are played on, and the weather around them.

use super::weather::{DEVICES, Turn};
use crate::circle::{Circle, PATIENCE};
use crate::device::Device;
use crate::pulse;
use crate::tree::Tree;
use std::fs;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long a daemon may take to end.
const END: Duration = Duration::from_secs(60);

/// Three devices of one circle, with what is wrong around them at the moment.
#[derive(Debug)]
pub struct Stage {
    circle: Circle,
    cut: [bool; DEVICES],
    down: [bool; DEVICES],
    alone: [bool; DEVICES],
    /// Whether all agreed and nothing was done since.
    calm: bool,
    /// What the daemons tell, which wakes whoever waits.
    events: Vec<Option<Receiver<String>>>,
    meetings: u64,
}

impl Stage {
    /// Founds a circle; `None` with a visible notice where this machine can't have one.
    pub fn or_skip() -> Option<Stage> {
        let circle = Circle::strangers_or_skip(&["anna", "bela", "cleo"])?;
        let mut stage = Stage {
            circle,
            cut: [false; DEVICES],
            down: [false; DEVICES],
            alone: [false; DEVICES],
            calm: false,
            events: (0..DEVICES).map(|_| None).collect(),
            meetings: 0,
        };
        for device in 0..DEVICES {
            // Nobody waits long for bytes that are out of reach.
            let config = stage.circle[device].home().join("config.toml");
            fs::write(config, "read_deadline_seconds = 1\n").expect("a home can be written to");
            stage.circle[device].terminate(END);
            stage.down[device] = true;
            stage.run(device);
        }
        for device in 1..DEVICES {
            stage.circle[device].pair(&stage.circle[0]);
        }
        stage.settle();
        Some(stage)
    }

    /// A device.
    pub fn device(&self, device: usize) -> &Device {
        &self.circle[device]
    }

    /// Whether a device's daemon doesn't run.
    pub fn is_down(&self, device: usize) -> bool {
        self.down[device]
    }

    /// Whether certainly no news reaches a device.
    pub fn is_alone(&self, device: usize) -> bool {
        self.alone[device]
    }

    /// Something is being done: what was agreed on is over.
    pub fn stir(&mut self) {
        self.calm = false;
    }

    /// Lets one thing happen. Says what really did, `None` if nothing, and what all agreed on.
    pub fn turn(&mut self, turn: Turn) -> Option<(String, Option<Tree>)> {
        let mut agreed = None;
        match turn {
            Turn::Cut(device) if !self.cut[device] => {
                self.circle.lab.cut(device + 1);
                self.cut[device] = true;
            }
            Turn::Join(device) if self.cut[device] => {
                self.circle.lab.join(device + 1);
                self.cut[device] = false;
            }
            Turn::Kill(device) if !self.down[device] => {
                self.circle[device].kill();
                self.down[device] = true;
            }
            Turn::End(device) if !self.down[device] => {
                let status = self.circle[device].terminate(END);
                assert!(status.success(), "{} ended with {status}", self.circle[device].name());
                self.down[device] = true;
            }
            Turn::Run(device) if self.down[device] => self.run(device),
            Turn::Meet => self.meet(),
            Turn::Settle => agreed = Some(self.heal()),
            _ => return None,
        }
        self.look_who_is_alone();
        let name = |device: usize| self.circle[device].name();
        let told = match turn {
            Turn::Cut(device) => format!("--- {} is cut off", name(device)),
            Turn::Join(device) => format!("--- {} is plugged in", name(device)),
            Turn::Kill(device) => format!("--- {} is killed", name(device)),
            Turn::End(device) => format!("--- {} ends", name(device)),
            Turn::Run(device) => format!("--- {} starts", name(device)),
            Turn::Meet => "--- those who are plugged in meet".into(),
            Turn::Settle => "--- all agree".into(),
        };
        Some((told, agreed))
    }

    fn run(&mut self, device: usize) {
        if self.down[device] {
            self.circle[device].run();
        }
        self.down[device] = false;
        self.events[device] = Some(self.circle[device].events());
    }

    /// Finds out whom no news can reach: nobody is within reach of them, and they don't have a
    /// connection left, or all had agreed before.
    fn look_who_is_alone(&mut self) {
        for device in 0..DEVICES {
            let reached = !self.cut[device]
                && (0..DEVICES).any(|e| e != device && !self.cut[e] && !self.down[e]);
            let was = self.alone[device];
            self.alone[device] = !reached
                && (was || self.calm || (!self.down[device] && self.is_unconnected(device)));
        }
    }

    fn is_unconnected(&self, device: usize) -> bool {
        self.circle[device].share().is_ok_and(|(_, connected)| connected == 0)
    }

    /// Waits until everybody within reach has heard of everybody's changes so far.
    fn meet(&mut self) {
        let here: Vec<usize> =
            (0..DEVICES).filter(|device| !self.cut[*device] && !self.down[*device]).collect();
        self.meetings += 1;
        for device in &here {
            let mark = format!("meeting {} {}", self.meetings, self.circle[*device].name());
            fs::create_dir(self.circle[*device].path(&mark)).expect("the mount can be written to");
        }
        for device in &here {
            for other in &here {
                let other = self.circle[*other].name();
                let mark = self.circle[*device].path(format!("meeting {} {other}", self.meetings));
                let what = format!("{} hears of {other}", self.circle[*device].name());
                pulse::until(PATIENCE, &what, || {
                    fs::symlink_metadata(&mark).map(drop).map_err(|error| error.to_string())
                });
            }
        }
    }

    /// Plugs everything in, starts everything, and waits until all agree on a tree.
    pub fn heal(&mut self) -> Tree {
        for device in 0..DEVICES {
            if self.cut[device] {
                self.circle.lab.join(device + 1);
                self.cut[device] = false;
            }
            if self.down[device] {
                self.run(device);
            }
        }
        self.settle()
    }

    fn settle(&mut self) -> Tree {
        let tree = self.circle.settle();
        self.calm = true;
        self.alone = [false; DEVICES];
        tree
    }

    /// Removes everything on one device, and waits until it is gone on all.
    ///
    /// # Errors
    /// What can't be removed, or came back.
    pub fn clear(&mut self, device: usize) -> Result<(), String> {
        let mount = self.circle[device].mount();
        let told = |error: std::io::Error| format!("the tree can't be removed: {error}");
        for entry in fs::read_dir(mount).map_err(told)? {
            let path = entry.map_err(told)?.path();
            let directory = fs::symlink_metadata(&path).map_err(told)?.is_dir();
            if directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                .map_err(told)?;
        }
        let left = self.settle();
        if left.nodes.is_empty() {
            return Ok(());
        }
        Err(format!("all was removed, but there is {:?}", left.nodes.keys()))
    }

    /// What the daemons logged that a healthy one doesn't.
    pub fn complaints(&self) -> Vec<String> {
        self.circle.devices.iter().flat_map(Device::complaints).collect()
    }
}
