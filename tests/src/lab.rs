//! A small Ethernet on one machine: hosts as network namespaces on one switch, whose cables can
//! be pulled. It needs root and `ip`.

use crate::scratch;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Hosts 1 to N on one switch. Everything goes when it is dropped.
///
/// The switch lives in a namespace of its own, so that nothing is visible to, or routed
/// through, the machine's own network, and labs with the same addresses exist side by side.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    hosts: usize,
}

/// What went through one host's cable so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Bytes that the host sent.
    pub sent_bytes: u64,
    /// Bytes that the host received.
    pub received_bytes: u64,
}

/// A lab, or `None` with a visible notice where this machine can't have one.
pub fn or_skip(hosts: usize) -> Option<Lab> {
    if let Some(missing) = missing() {
        crate::notice::skip(&missing);
        return None;
    }
    Some(Lab::new(hosts))
}

/// What this machine lacks for a lab, if anything.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("mounting needs /dev/fuse".into());
    }
    for (program, package) in [("ip", "iproute2"), ("nsenter", "util-linux")] {
        if Command::new(program).arg("-V").output().is_err() {
            return Some(format!("namespaces need `{program}` (apt-get install {package})"));
        }
    }
    None
}

impl Lab {
    fn new(hosts: usize) -> Lab {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Lab { prefix: format!("{}{number}", scratch::namespace_prefix()), hosts };
        let switch = lab.switch();
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link set lo up"));
        ip(&format!(
            "-n {switch} link add bridge type bridge mcast_snooping 0 stp_state 0 forward_delay 0"
        ));
        ip(&format!("-n {switch} link set bridge up"));
        for host in 1..=hosts {
            let namespace = lab.namespace(host);
            ip(&format!("netns add {namespace}"));
            ip(&format!(
                "link add port{host} netns {switch} type veth peer name eth0 netns {namespace}"
            ));
            ip(&format!("-n {switch} link set port{host} master bridge up"));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} addr add {}/24 brd + dev eth0", lab.address(host)));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} route add 224.0.0.0/4 dev eth0"));
        }
        lab
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    /// The name of a host's network namespace.
    pub fn namespace(&self, host: usize) -> String {
        assert!((1..=self.hosts).contains(&host), "the lab has no host {host}");
        format!("{}-h{host}", self.prefix)
    }

    /// A host's address.
    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{host}")
    }

    /// A command that runs in a host's network, and sees the same files as this process.
    pub fn command(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(host))).arg("--").arg(program);
        command
    }

    /// Does something on a host's network, such as opening a socket, which then stays on it.
    pub fn on<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(host));
        let network = std::fs::File::open(path).expect("the lab's namespaces can be opened");
        let act = || {
            rustix::thread::move_into_link_name_space(network.as_fd(), None)
                .expect("root may move its threads");
            act()
        };
        std::thread::scope(|scope| {
            scope.spawn(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Pulls a host's cable.
    pub fn cut(&self, host: usize) {
        ip(&format!("-n {} link set port{host} down", self.switch()));
    }

    /// Plugs a host's cable in again.
    pub fn join(&self, host: usize) {
        ip(&format!("-n {} link set port{host} up", self.switch()));
    }

    /// Keeps isolated hosts from hearing one another. All others hear them, and are heard.
    pub fn isolate(&self, host: usize) {
        ip(&format!("-n {} link set port{host} type bridge_slave isolated on", self.switch()));
    }

    /// Limits what every host sends, to a rate such as `200mbit`.
    pub fn shape(&self, rate: &str) {
        for host in 1..=self.hosts {
            let namespace = self.namespace(host);
            let arguments = format!(
                "-n {namespace} qdisc replace dev eth0 root tbf rate {rate} burst 128k latency 20ms"
            );
            demand("tc", &arguments);
        }
    }

    /// What went through a host's cable so far, as the switch counted it.
    pub fn traffic(&self, host: usize) -> Traffic {
        let output = ip(&format!("-n {} -s -j link show port{host}", self.switch()));
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("ip prints JSON when asked to");
        let bytes = |direction: &str| {
            links[0]["stats64"][direction]["bytes"].as_u64().expect("ip prints what it counted")
        };
        Traffic { sent_bytes: bytes("rx"), received_bytes: bytes("tx") }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            scratch::remove_namespace(&self.namespace(host));
        }
        scratch::remove_namespace(&self.switch());
    }
}

fn ip(arguments: &str) -> Output {
    demand("ip", arguments)
}

fn demand(program: &str, arguments: &str) -> Output {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("`{program}` can't be run: {error}"));
    assert!(
        output.status.success(),
        "`{program} {arguments}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    /// Whether a host reaches another one.
    fn reaches(lab: &Lab, from: usize, to: usize) -> bool {
        let address = lab.address(to);
        let listener =
            lab.on(to, || TcpListener::bind((address.as_str(), 0)).expect("the host has it"));
        let address = listener.local_addr().expect("it is bound");
        lab.on(from, || TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok())
    }

    #[test]
    fn a_cable_can_be_cut_and_joined() {
        let Some(lab) = or_skip(3) else { return };
        assert!(reaches(&lab, 1, 2));
        lab.cut(1);
        assert!(!reaches(&lab, 1, 2));
        assert!(reaches(&lab, 2, 3));
        lab.join(1);
        crate::pulse::until(Duration::from_secs(10), "host 1 is back", || {
            if reaches(&lab, 1, 2) { Ok(()) } else { Err("no answer".into()) }
        });
        lab.isolate(1);
        lab.isolate(3);
        assert!(!reaches(&lab, 1, 3));
        assert!(reaches(&lab, 1, 2) && reaches(&lab, 3, 2));
        assert!(lab.traffic(2).received_bytes > 0);
        lab.shape("100mbit");
        assert!(reaches(&lab, 1, 2));
    }

    #[test]
    fn a_lab_leaves_nothing_behind() {
        let Some(lab) = or_skip(1) else { return };
        let name = lab.namespace(1);
        let mut child = lab
            .command(1, Path::new("cat"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("cat runs");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(b"x").expect("cat reads");
        let mut echo = [0];
        child.stdout.take().expect("it is piped").read_exact(&mut echo).expect("cat answers");
        drop(lab);
        assert!(!Path::new("/run/netns").join(name).exists());
        assert!(!child.wait().expect("it is our child").success(), "it was ended");
    }
}
