//! What can be said on the command line.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use kith_daemon::handover::Descriptors;
use std::path::PathBuf;

/// One folder on all your devices.
///
/// `kith up` starts it and mounts the folder, `kith invite` shows a code, and `kith join CODE` on
/// another device makes the two folders one.
#[derive(Parser, Debug)]
#[command(name = "kith", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Keep everything under DIR: a second installation on one machine
    #[arg(long, global = true, env = "KITH_HOME", hide_env_values = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,

    /// Print facts and errors as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start Kith and mount the folder
    Up(Mounting),
    /// Stop Kith; the folder is unmounted, nothing is lost
    Down,
    /// Start Kith again, as after an upgrade; the folder stays mounted, and open files stay open
    Restart,
    /// Run in the foreground and log to stderr
    Daemon(Foreground),
    /// Show this device, the folder and the other devices
    Status {
        /// Go on showing it, whenever something happens
        #[arg(long)]
        watch: bool,
    },
    /// Show a code with which another device can join
    Invite,
    /// Join the device that shows CODE
    Join {
        /// The code, or the link in the QR code
        code: String,
        /// Where that device is, if it is not found by itself
        #[arg(long, value_name = "HOST:PORT")]
        addr: Vec<String>,
    },
    /// The devices that share the folder; lists them unless told otherwise
    Devices {
        /// What to do
        #[command(subcommand)]
        command: Option<Devices>,
    },
    /// The folders that are shared; lists them
    Shares {
        /// What to do
        #[command(subcommand)]
        command: Option<Shares>,
    },
    /// Say that a device meant to remove or overwrite so much of the folder
    ///
    /// When one device removes or overwrites a large part of the folder within a short time, the
    /// others let go of nothing that it touched until somebody says so, on any of them.
    Meant {
        /// Its name, or the beginning of its id; all devices unless told otherwise
        device: Option<String>,
    },
    /// Print what happens, as it happens
    Events,
    /// Look for whatever could keep Kith from working
    Doctor,
    /// Show two devices at work in a scratch directory, until Ctrl-C
    Demo,
    /// Print a completion script
    Completions {
        /// The shell that it is for
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// Where the folder is mounted.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Mounting {
    /// Mount the folder at DIR, now and from now on
    #[arg(long, value_name = "DIR", conflicts_with = "no_mount")]
    pub(crate) mount: Option<PathBuf>,
    /// Keep the folder in step without mounting it
    #[arg(long)]
    pub(crate) no_mount: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Foreground {
    #[command(flatten)]
    pub(crate) mounting: Mounting,
    /// Leave the terminal's session first, as `up` wants it
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    /// What the daemon left whose place this one takes
    #[arg(long, hide = true, value_name = "DESCRIPTORS")]
    pub(crate) handover: Option<Descriptors>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Devices {
    /// List the devices
    List,
    /// Give a device another name
    Rename {
        /// Its name, or the beginning of its id
        device: String,
        /// The new name
        name: String,
    },
    /// Remove a device for good; what it holds stays on it
    Remove {
        /// Its name, or the beginning of its id
        device: String,
        /// Do not ask first
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Shares {
    /// List the folders
    List,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn right_usage_is_understood() {
        for line in [
            "up",
            "up --mount /x",
            "up --no-mount",
            "--home /h up",
            "up --home /h",
            "down --json",
            "restart",
            "restart --json",
            "daemon --handover=7,9",
            "daemon --mount /x",
            "daemon --detached",
            "status --watch --json",
            "invite",
            "join 7-mango-elephant",
            "join 7-mango-elephant --addr 192.0.2.1:5484 --addr nas:5484 --json",
            "devices list",
            "devices rename laptop desk",
            "devices remove laptop --yes",
            "shares list",
            "meant",
            "meant laptop --json",
            "events --json",
            "doctor",
            "demo",
            "completions bash",
            "man",
        ] {
            let arguments = Arguments::try_parse_from(["kith"].into_iter().chain(line.split(' ')));
            assert!(arguments.is_ok(), "{line}: {arguments:?}");
        }
    }

    #[test]
    fn wrong_usage_has_exit_code_2() {
        for (line, kind) in [
            ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("fly", ErrorKind::InvalidSubcommand),
            ("up --fast", ErrorKind::UnknownArgument),
            ("restart --mount /x", ErrorKind::UnknownArgument),
            ("daemon --handover=1,2", ErrorKind::ValueValidation),
            ("up --mount", ErrorKind::InvalidValue),
            ("up --mount /x --no-mount", ErrorKind::ArgumentConflict),
            ("join", ErrorKind::MissingRequiredArgument),
            ("join a b", ErrorKind::UnknownArgument),
            ("devices rename laptop", ErrorKind::MissingRequiredArgument),
            ("meant a b", ErrorKind::UnknownArgument),
            ("devices fly", ErrorKind::InvalidSubcommand),
            ("completions cobol", ErrorKind::InvalidValue),
            ("status --home", ErrorKind::InvalidValue),
        ] {
            let words = line.split(' ').filter(|word| !word.is_empty());
            let error = Arguments::try_parse_from(["kith"].into_iter().chain(words)).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
