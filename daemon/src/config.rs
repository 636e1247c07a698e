//! A person's settings: `config.toml`. Everything in it is optional.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The UDP port that a device listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 5484;
/// The longest name of a device, in bytes.
pub const NAME_BYTES: usize = 63;
/// The most addresses that a person can list.
const PEERS: usize = 256;
/// The largest file that is read as settings.
const FILE_BYTES: u64 = 1 << 20;

/// A person's settings.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What this device is called; if unset, its host name at its first start.
    pub name: Option<String>,
    /// The UDP port to listen on; if unset, [`DEFAULT_PORT`]. If it is taken, another one is used,
    /// and `doctor` says so.
    pub port: Option<u16>,
    /// Where the folder is mounted. `--mount` counts more.
    pub mount: Option<PathBuf>,
    /// Look for the other devices on the local network, and let them find this one.
    pub mdns: bool,
    /// `HOST:PORT` of devices that can't be found by themselves.
    pub peers: Vec<String>,
    /// How many seconds a read waits for bytes that are not here before it fails; 1 to 3600.
    pub read_deadline_seconds: u64,
    /// For how many days superseded and removed versions are kept here, if there is room; at most
    /// 36500.
    pub history_days: u64,
    /// What holds for one share only, by the shares' names.
    pub shares: BTreeMap<String, ShareConfig>,
}

/// A person's settings for one share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShareConfig {
    /// Whether this device merges lines that several devices changed apart in one text.
    pub merge_text: bool,
}

impl Default for ShareConfig {
    fn default() -> Self {
        ShareConfig { merge_text: true }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: None,
            port: None,
            mount: None,
            mdns: true,
            peers: Vec::new(),
            read_deadline_seconds: 30,
            history_days: 90,
            shares: BTreeMap::new(),
        }
    }
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the settings in {path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file doesn't say what settings say.
    #[error("the settings in {path} are not right{}: {what}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
        /// What is wrong.
        what: String,
    },
}

impl Config {
    /// The settings in the file at `path`; those of an empty file if there is none.
    ///
    /// # Errors
    /// If it can't be read, or a setting is unknown, of the wrong kind or out of range.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return Err(unreadable(error)),
            Ok(found) if found.len() > FILE_BYTES => {
                return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
            }
            Ok(_) => std::fs::read_to_string(path).map_err(unreadable)?,
        };
        Self::parse(&text).map_err(|(line, what)| ConfigError::Wrong {
            path: path.to_owned(),
            line,
            what,
        })
    }

    /// How long a read waits for bytes that are not here before it fails.
    #[must_use]
    pub fn read_deadline(&self) -> Duration {
        Duration::from_secs(self.read_deadline_seconds)
    }

    /// For how many milliseconds superseded and removed versions are kept, if there is room.
    #[must_use]
    pub fn history_ms(&self) -> u64 {
        self.history_days * 24 * 3600 * 1000
    }

    /// What holds for the share of this name.
    #[must_use]
    pub fn share(&self, name: &str) -> ShareConfig {
        self.shares.get(name).copied().unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Config, (Option<usize>, String)> {
        let config: Config = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            (line, error.message().replace('\n', " "))
        })?;
        config.check().map_err(|what| (None, what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.name {
            check_name(name).map_err(|what| format!("`name` {what}"))?;
        }
        if self.port == Some(0) {
            return Err("`port` must be from 1 to 65535".into());
        }
        if let Some(mount) = &self.mount
            && !mount.is_absolute()
        {
            return Err(format!("`mount` must begin with /, unlike {}", mount.display()));
        }
        if self.peers.len() > PEERS {
            return Err(format!("`peers` lists more than {PEERS} addresses"));
        }
        for peer in &self.peers {
            check_address(peer).map_err(|what| format!("in `peers`, {what}"))?;
        }
        if !(1..=3600).contains(&self.read_deadline_seconds) {
            return Err("`read_deadline_seconds` must be from 1 to 3600".into());
        }
        if self.history_days > 36500 {
            return Err("`history_days` must be from 0 to 36500".into());
        }
        Ok(())
    }
}

/// Whether `name` can be a device's name.
///
/// # Errors
/// What is wrong with it, to be read after the name of what was given.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("must not be empty".into());
    }
    if name.len() > NAME_BYTES {
        return Err(format!("must not be longer than {NAME_BYTES} bytes"));
    }
    // It becomes a part of file names.
    if name.trim() != name
        || name.chars().any(|character| character.is_control() || character == '/')
    {
        return Err("must be one line without / and without spaces around it".into());
    }
    Ok(())
}

/// Whether `address` has the form `HOST:PORT`, where an IPv6 address stands in brackets.
///
/// # Errors
/// What is wrong with it, in words that contain it.
pub fn check_address(address: &str) -> Result<(), String> {
    let wrong = || format!("\"{}\" is not HOST:PORT", address.escape_debug());
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = host.bytes().all(|byte| byte.is_ascii_graphic() && !b":[]/@".contains(&byte));
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits && !host.is_empty() && host.len() <= 255 => {}
        _ => return Err(wrong()),
    }
    if bracketed {
        let inner = &host[1..host.len() - 1];
        let number = inner.split_once('%').map_or(inner, |(number, _zone)| number);
        return number.parse::<std::net::Ipv6Addr>().map(drop).map_err(|_| wrong());
    }
    if plain { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_and_an_empty_file_mean_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        assert_eq!(Config::load(&path).unwrap(), Config::default());
        std::fs::write(&path, "").unwrap();
        assert_eq!(Config::load(&path).unwrap(), Config::default());
    }

    #[test]
    fn every_setting_is_read() {
        let config = Config::parse(
            "name = \"desktop\"\nport = 5000\nmount = \"/mnt/kith\"\nmdns = false\n\
             peers = [\"192.0.2.1:5484\", \"[2001:db8::1]:5484\", \"nas.local:1\"]\n\
             read_deadline_seconds = 5\nhistory_days = 7\n\
             [shares.Kith]\nmerge_text = false\n",
        );
        let expected = Config {
            name: Some("desktop".into()),
            port: Some(5000),
            mount: Some("/mnt/kith".into()),
            mdns: false,
            peers: vec!["192.0.2.1:5484".into(), "[2001:db8::1]:5484".into(), "nas.local:1".into()],
            read_deadline_seconds: 5,
            history_days: 7,
            shares: BTreeMap::from([("Kith".into(), ShareConfig { merge_text: false })]),
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (text, line, what) in [
            ("colour = 1", Some(1), "unknown field `colour`"),
            ("mdns = true\nport = \"x\"", Some(2), "invalid type"),
            ("mdns = true\n\nport = 70000", Some(3), "invalid value"),
            ("port = 0", None, "`port` must be from 1 to 65535"),
            ("name = \"\"", None, "`name` must not be empty"),
            ("name = \"a/b\"", None, "`name` must be one line"),
            ("mount = \"Kith\"", None, "`mount` must begin with /"),
            ("peers = [\"192.0.2.1\"]", None, "\"192.0.2.1\" is not HOST:PORT"),
            ("read_deadline_seconds = 0", None, "`read_deadline_seconds` must be"),
            ("history_days = 40000", None, "`history_days` must be"),
            ("[shares.Kith]\nmerge = false", Some(2), "unknown field `merge`"),
            ("port = ", Some(1), ""),
        ] {
            let (found, sentence) = Config::parse(text).unwrap_err();
            assert_eq!(found, line, "{text}: {sentence}");
            assert!(sentence.contains(what), "{text}: {sentence}");
            assert!(!sentence.contains('\n'), "{text}: {sentence}");
        }
    }

    #[test]
    fn the_file_and_the_line_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "\nport = true\n").unwrap();
        let sentence = Config::load(&path).unwrap_err().to_string();
        let start = format!("the settings in {} are not right, line 2: ", path.display());
        assert!(sentence.starts_with(&start), "{sentence}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["a:1", "192.0.2.1:65535", "[::1]:5484", "[fe80::1%eth0]:5484", "h-1.x:22"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "a:+1", "::1:5484", "[::g]:1", "a b:1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
