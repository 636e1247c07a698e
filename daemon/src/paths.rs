//! Where one installation of Kith keeps what is its own.

use rustix::fs::{FlockOperation, flock};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest path of a Unix socket on Linux, less the closing zero byte.
const SOCKET_PATH_BYTES: usize = 107;
/// The socket's name in the runtime directory.
const SOCKET_NAME: &str = "control.sock";
/// The longest name of a socket that is put into the runtime directory.
const LONGEST_SOCKET_NAME: usize = "ready-4294967295.sock".len();

/// The places of one installation. Nothing in them has to exist yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// The directory of everything that must last: identity, circle, stores, log.
    pub data: PathBuf,
    /// The file with a person's settings.
    pub config: PathBuf,
    /// The directory of sockets. Only its owner may enter it.
    pub runtime: PathBuf,
    /// Where the folder is mounted unless something else is asked for.
    pub default_mount: PathBuf,
    /// The directory that `--home` or `KITH_HOME` named, if one did.
    pub home: Option<PathBuf>,
}

/// Why there is no place for Kith's files.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither `HOME` nor the user database names a home directory.
    #[error("this user has no home directory")]
    Homeless,
    /// A path can't be made absolute.
    #[error("{path} is not a usable path: {cause}")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A directory can't be made.
    #[error("the directory {path} cannot be made: {cause}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A directory for sockets is somebody else's, or others may enter it.
    #[error("the directory {path} is not this user's alone")]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the installation can't be read or written.
    #[error("{path} cannot be used: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another daemon runs on the same data.
    #[error("Kith is already running here{}", process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    Running {
        /// Its process id, if it could be read.
        process: Option<u32>,
    },
}

impl Paths {
    /// The places of the installation under `home`, or of this user's own if there is none.
    ///
    /// # Errors
    /// [`PathsError::Homeless`] and [`PathsError::Unusable`].
    pub fn find(home: Option<&Path>) -> Result<Paths, PathsError> {
        match home {
            Some(home) => Self::under(home),
            None => Self::of_user(|name| std::env::var_os(name), std::env::home_dir()),
        }
    }

    /// Everything under one directory.
    fn under(home: &Path) -> Result<Paths, PathsError> {
        let home = absolute(home)?;
        // So that two spellings of one directory lead to one socket.
        let home = home.canonicalize().unwrap_or(home);
        let near = home.join("run");
        let runtime = if fits(&near) { near } else { short(&home) };
        Ok(Paths {
            data: home.join("data"),
            config: home.join("config.toml"),
            runtime,
            default_mount: home.join("Kith"),
            home: Some(home),
        })
    }

    /// What the XDG base directory specification says.
    fn of_user(
        variable: impl Fn(&str) -> Option<OsString>,
        person: Option<PathBuf>,
    ) -> Result<Paths, PathsError> {
        // A relative value is to be ignored, says the specification.
        let named =
            |name| variable(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let person = person.filter(|path| path.is_absolute()).ok_or(PathsError::Homeless)?;
        let data = named("XDG_DATA_HOME").unwrap_or_else(|| person.join(".local/share"));
        let config = named("XDG_CONFIG_HOME").unwrap_or_else(|| person.join(".config"));
        let data = data.join("kith");
        let user = rustix::process::getuid().as_raw();
        let runtime = named("XDG_RUNTIME_DIR")
            .or_else(|| Some(PathBuf::from(format!("/run/user/{user}"))).filter(|at| at.is_dir()))
            .map(|directory| directory.join("kith"))
            // Without a session's directory: beside the data, so that two homes have two sockets.
            .into_iter()
            .chain([data.join("run")])
            .find(|directory| fits(directory))
            .unwrap_or_else(|| short(&data));
        Ok(Paths {
            config: config.join("kith/config.toml"),
            data,
            runtime,
            default_mount: person.join("Kith"),
            home: None,
        })
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join(SOCKET_NAME)
    }

    /// Where a daemon that runs on this data said that its control socket is; if none did, where
    /// it would be. The two differ if the daemon was started in a session with other directories.
    #[must_use]
    pub fn running_socket(&self) -> PathBuf {
        let here = self.socket();
        if here.exists() {
            return here;
        }
        read_holder(&self.lock_file()).and_then(|holder| holder.socket).unwrap_or(here)
    }

    /// The log of a daemon that `up` started.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data.join("log/daemon.log")
    }

    /// Makes the data directory, readable by its owner only.
    ///
    /// # Errors
    /// [`PathsError::Directory`].
    pub fn make_data(&self) -> Result<(), PathsError> {
        make_private(&self.data)
    }

    /// Makes the directory of sockets, and makes sure that nobody else can enter it.
    ///
    /// # Errors
    /// [`PathsError::Directory`] and [`PathsError::NotPrivate`].
    pub fn make_runtime(&self) -> Result<(), PathsError> {
        make_private(&self.runtime)?;
        let path = self.runtime.clone();
        let found = fs::symlink_metadata(&path)
            .map_err(|cause| PathsError::Directory { path: path.clone(), cause })?;
        // In a directory that all may write to, somebody may have made it first.
        let mine = found.uid() == rustix::process::getuid().as_raw();
        if !found.is_dir() || !mine || found.mode() & 0o077 != 0 {
            return Err(PathsError::NotPrivate { path });
        }
        Ok(())
    }

    /// Claims the data for this process, for as long as the answer lives.
    ///
    /// # Errors
    /// [`PathsError::Running`] if another process holds it; [`PathsError::Directory`] and
    /// [`PathsError::File`].
    pub fn claim(&self) -> Result<DataClaim, PathsError> {
        self.make_data()?;
        let path = self.lock_file();
        let failed = |cause| PathsError::File { path: path.clone(), cause };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let process = read_holder(&path).and_then(|holder| holder.process);
                return Err(PathsError::Running { process });
            }
            Err(cause) => return Err(failed(cause.into())),
        }
        let mut holder = format!("{}\n", std::process::id()).into_bytes();
        holder.extend_from_slice(self.socket().as_os_str().as_bytes());
        file.set_len(0).map_err(failed)?;
        file.write_all(&holder).map_err(failed)?;
        Ok(DataClaim { _file: file })
    }

    /// Waits until no process holds the data. May wait for ever.
    ///
    /// # Errors
    /// [`PathsError::File`].
    pub fn wait_until_free(&self) -> Result<(), PathsError> {
        let path = self.lock_file();
        let wait = || -> io::Result<()> {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                file => file?,
            };
            loop {
                match flock(&file, FlockOperation::LockShared) {
                    Err(rustix::io::Errno::INTR) => {}
                    done => return Ok(done?),
                }
            }
        };
        wait().map_err(|cause| PathsError::File { path: path.clone(), cause })
    }

    /// The process that holds the data, if one does; its number, if it could be read.
    #[must_use]
    pub fn holder(&self) -> Option<Option<u32>> {
        let path = self.lock_file();
        let file = File::open(&path).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Some(read_holder(&path).and_then(|holder| holder.process))
            }
            _ => None,
        }
    }

    /// Where the folder is to be mounted: where `given` says, else where the settings say, else
    /// where it was asked for the last time, else at the default place.
    ///
    /// # Errors
    /// [`PathsError::Unusable`] for a path that can't be made absolute, [`PathsError::File`] if
    /// what was remembered can't be read.
    pub fn mount_point(
        &self,
        given: Option<&Path>,
        configured: Option<&Path>,
    ) -> Result<PathBuf, PathsError> {
        if let Some(path) = given.or(configured) {
            return absolute(path);
        }
        let path = self.mount_file();
        match fs::read(&path) {
            Ok(bytes) if bytes.first() == Some(&b'/') => {
                Ok(PathBuf::from(OsString::from_vec(bytes)))
            }
            Ok(_) => Ok(self.default_mount.clone()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(self.default_mount.clone()),
            Err(cause) => Err(PathsError::File { path, cause }),
        }
    }

    /// Keeps a mount point that a person asked for, for the next start.
    ///
    /// # Errors
    /// [`PathsError::Unusable`], [`PathsError::Directory`] and [`PathsError::File`].
    pub fn remember_mount(&self, mount: &Path) -> Result<(), PathsError> {
        self.make_data()?;
        let mount = absolute(mount)?;
        let path = self.mount_file();
        if fs::read(&path).is_ok_and(|kept| kept == mount.as_os_str().as_bytes()) {
            // So that a full disk is no obstacle.
            return Ok(());
        }
        let beside = path.with_extension("new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(mount.as_os_str().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        write().map_err(|cause| PathsError::File { path: path.clone(), cause })
    }

    fn lock_file(&self) -> PathBuf {
        self.data.join("daemon.lock")
    }

    fn mount_file(&self) -> PathBuf {
        self.data.join("mount")
    }
}

/// The data is this process's alone until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct DataClaim {
    _file: File,
}

/// What the process that holds the data wrote about itself.
struct Holder {
    process: Option<u32>,
    socket: Option<PathBuf>,
}

fn read_holder(path: &Path) -> Option<Holder> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    let (process, socket) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n')?);
    Some(Holder {
        process: std::str::from_utf8(process).ok().and_then(|text| text.parse().ok()),
        socket: Some(PathBuf::from(OsStr::from_bytes(&socket[1..])))
            .filter(|path| path.is_absolute()),
    })
}

/// `path`, seen from the current directory.
fn absolute(path: &Path) -> Result<PathBuf, PathsError> {
    std::path::absolute(path).map_err(|cause| PathsError::Unusable { path: path.to_owned(), cause })
}

/// Whether sockets in `directory` have paths that the kernel takes.
fn fits(directory: &Path) -> bool {
    directory.as_os_str().len() + 1 + LONGEST_SOCKET_NAME <= SOCKET_PATH_BYTES
}

/// A short path for the sockets of the installation at `place`.
fn short(place: &Path) -> PathBuf {
    let hash = blake3::hash(place.as_os_str().as_bytes()).to_hex();
    let user = rustix::process::getuid().as_raw();
    let session = PathBuf::from(format!("/run/user/{user}"));
    if session.is_dir() {
        session.join(format!("kith-{}", &hash[..16]))
    } else {
        PathBuf::from(format!("/tmp/kith-{user}-{}", &hash[..16]))
    }
}

fn make_private(path: &Path) -> Result<(), PathsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|cause| PathsError::Directory { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_home_holds_everything() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().canonicalize().unwrap();
        let paths = Paths::find(Some(&home)).unwrap();
        assert_eq!(paths.data, home.join("data"));
        assert_eq!(paths.config, home.join("config.toml"));
        assert_eq!(paths.default_mount, home.join("Kith"));
        assert_eq!(paths.socket(), home.join("run/control.sock"));
    }

    #[test]
    fn a_long_home_has_a_short_socket() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("a".repeat(120));
        let paths = Paths::find(Some(&home)).unwrap();
        assert!(paths.socket().as_os_str().len() <= SOCKET_PATH_BYTES, "{:?}", paths.socket());
        assert_eq!(paths, Paths::find(Some(&home)).unwrap());
        let other = directory.path().join("b".repeat(120));
        assert_ne!(paths.runtime, Paths::find(Some(&other)).unwrap().runtime);
    }

    #[test]
    fn a_user_has_the_directories_of_the_specification() {
        let home = || Some(PathBuf::from("/home/anna"));
        let plain = Paths::of_user(|_| None, home()).unwrap();
        assert_eq!(plain.data, Path::new("/home/anna/.local/share/kith"));
        assert_eq!(plain.config, Path::new("/home/anna/.config/kith/config.toml"));
        assert_eq!(plain.default_mount, Path::new("/home/anna/Kith"));

        let set = |name: &str| match name {
            "XDG_DATA_HOME" => Some("/big/share".into()),
            "XDG_CONFIG_HOME" => Some("relative".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            _ => None,
        };
        let moved = Paths::of_user(set, home()).unwrap();
        assert_eq!(moved.data, Path::new("/big/share/kith"));
        assert_eq!(moved.config, Path::new("/home/anna/.config/kith/config.toml"));
        assert_eq!(moved.socket(), Path::new("/run/user/7/kith/control.sock"));

        assert!(matches!(Paths::of_user(|_| None, None), Err(PathsError::Homeless)));
    }

    #[test]
    fn only_one_process_holds_the_data() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path())).unwrap();
        assert_eq!(paths.holder(), None);
        let claim = paths.claim().unwrap();
        let refused = paths.claim().unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("Kith is already running here (process {})", std::process::id())
        );
        assert_eq!(paths.holder(), Some(Some(std::process::id())));
        assert_eq!(paths.running_socket(), paths.socket());
        drop(claim);
        assert_eq!(paths.holder(), None);
        paths.wait_until_free().unwrap();
        paths.claim().unwrap();
    }

    #[test]
    fn the_socket_of_a_daemon_from_another_session_is_found() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path())).unwrap();
        let elsewhere = Paths { runtime: home.path().join("elsewhere"), ..paths.clone() };
        let _claim = elsewhere.claim().unwrap();
        assert_eq!(paths.running_socket(), elsewhere.socket());
    }

    #[test]
    fn directories_are_private_and_a_foreign_one_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path())).unwrap();
        paths.make_data().unwrap();
        paths.make_runtime().unwrap();
        for directory in [&paths.data, &paths.runtime] {
            assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
        fs::set_permissions(&paths.runtime, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(paths.make_runtime(), Err(PathsError::NotPrivate { .. })));
    }

    #[test]
    fn the_mount_point_is_the_nearest_wish() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path())).unwrap();
        let point = |given: Option<&str>, configured: Option<&str>| {
            paths.mount_point(given.map(Path::new), configured.map(Path::new)).unwrap()
        };
        assert_eq!(point(None, None), paths.default_mount);
        paths.remember_mount(Path::new("/mnt/remembered")).unwrap();
        assert_eq!(point(None, None), Path::new("/mnt/remembered"));
        assert_eq!(point(None, Some("/mnt/configured")), Path::new("/mnt/configured"));
        assert_eq!(point(Some("/mnt/given"), Some("/mnt/configured")), Path::new("/mnt/given"));
        assert_eq!(point(Some("x"), None), std::env::current_dir().unwrap().join("x"));
    }
}
