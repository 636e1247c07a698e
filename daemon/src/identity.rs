//! This device's identity: its key pair, the certificate made from it, and its id.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kith_core::id::DeviceId;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// What precedes the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The longest key file that is read: many times what an Ed25519 key takes.
const KEY_FILE_MAX: u64 = 4096;

/// The name of the key file in the identity's directory.
const KEY_FILE: &str = "key.der";

/// The public half of a device's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The key in a SubjectPublicKeyInfo, if it is an Ed25519 key in its one canonical form.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<PublicKey> {
        der.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PublicKey)
    }

    /// The DER of this key's SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..12].copy_from_slice(&SPKI_PREFIX);
        der[12..].copy_from_slice(&self.0);
        der
    }

    /// The id of the device whose key this is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId(*blake3::hash(&self.spki()).as_bytes())
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of {:?}", self.device())
    }
}

/// This device's key pair, and what is derived from it.
pub struct Identity {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    certificate: CertificateDer<'static>,
    public: PublicKey,
    device: DeviceId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity kept in `directory`, which is made, together with a new key, if it has none.
    ///
    /// # Errors
    /// A key file that can't be read, isn't a key, or is open to other users is refused and left
    /// as it is: a new key would make this device a stranger to its circle.
    pub fn load_or_create(directory: &Path) -> Result<Identity, IdentityError> {
        let path = directory.join(KEY_FILE);
        match File::open(&path) {
            Ok(file) => Identity::load(&path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Identity::create(directory, &path)
            }
            Err(cause) => Err(IdentityError::Unreadable { path, cause }),
        }
    }

    fn load(path: &Path, file: File) -> Result<Identity, IdentityError> {
        let unreadable = |cause| IdentityError::Unreadable { path: path.to_owned(), cause };
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(128));
        file.take(KEY_FILE_MAX).read_to_end(&mut pkcs8).map_err(unreadable)?;
        Identity::from_pkcs8(pkcs8).ok_or_else(|| IdentityError::Corrupt { path: path.to_owned() })
    }

    fn create(directory: &Path, path: &Path) -> Result<Identity, IdentityError> {
        let unwritable = |cause| IdentityError::Unwritable { path: path.to_owned(), cause };
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| unwritable(io::Error::other("the system gives no random numbers")))?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unwritable)?;
        write_private(path, &pkcs8).map_err(unwritable)?;
        Ok(Identity::from_pkcs8(pkcs8).expect("a key that was just made is a key"))
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Option<Identity> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        let certificate = certificate(&pkcs8)?;
        Some(Identity { pair, pkcs8, certificate, public, device: public.device() })
    }

    /// An identity that is kept nowhere.
    ///
    /// # Panics
    /// If the system gives no random numbers.
    #[must_use]
    pub fn ephemeral() -> Identity {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("the system gives random numbers");
        Identity::from_pkcs8(Zeroizing::new(document.as_ref().to_vec()))
            .expect("a key that was just made is a key")
    }

    /// This device's id.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The public half of the key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The self-signed certificate. Its only meaning is its key.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The private key as TLS takes it.
    #[must_use]
    pub fn private_key(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.to_vec())
    }

    /// Signs `message`. Callers put their own purpose in front of it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair
            .sign(message)
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes (RFC 8032)")
    }
}

/// The certificate of a key: made anew at each start, since nothing but its key is looked at.
fn certificate(pkcs8: &[u8]) -> Option<CertificateDer<'static>> {
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8),
        &rcgen::PKCS_ED25519,
    )
    .ok()?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "kith");
    Some(parameters.self_signed(&pair).ok()?.der().clone())
}

/// Replaces the file at `path` by `bytes`, readable by this user only, so that a crash leaves the
/// old file or the new one. Both are on disk when it returns.
///
/// # Errors
/// As the system reports them; the old file is still there then.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.join(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file is there and can't be read.
    #[error("can't read this device's key {}: {cause}; it was left as it is", path.display())]
    Unreadable {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The key file doesn't hold a key.
    #[error(
        "this device's key {} is damaged and was left as it is; put it back from a backup, or \
         move it away to begin as a new device",
        path.display()
    )]
    Corrupt {
        /// The key file.
        path: PathBuf,
    },
    /// Other users may read or write the key.
    #[error(
        "this device's key {at} is open to other users (mode {mode:03o}); if nobody else has read \
         it, run: chmod 600 {at}",
        at = path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A new key couldn't be kept.
    #[error("can't write this device's key {}: {cause}", path.display())]
    Unwritable {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_private_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("data/identity");
        let first = Identity::load_or_create(&directory).unwrap();
        let again = Identity::load_or_create(&directory).unwrap();
        assert_eq!(first.device(), again.device());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.join(KEY_FILE)), 0o600);
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_key_is_refused_and_left() {
        let home = tempfile::tempdir().unwrap();
        Identity::load_or_create(home.path()).unwrap();
        let path = home.path().join(KEY_FILE);
        let good = fs::read(&path).unwrap();
        let mut cases = vec![Vec::new(), good[..good.len() - 1].to_vec(), vec![0; 9000]];
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            cases.push(flipped);
        }
        for bytes in cases {
            fs::write(&path, &bytes).unwrap();
            match Identity::load_or_create(home.path()) {
                Err(IdentityError::Corrupt { .. }) => {}
                // A flipped bit in a tag that carries nothing may still name the same key.
                Ok(identity) => {
                    assert_eq!(identity.pair.public_key().as_ref(), &good[good.len() - 32..]);
                }
                Err(other) => panic!("{other}"),
            }
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Identity::load_or_create(home.path()).unwrap();
        let path = home.path().join(KEY_FILE);
        for mode in [0o640, 0o604, 0o660, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_create(home.path()).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn an_unreadable_key_is_no_reason_to_make_another() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(KEY_FILE)).unwrap();
        fs::set_permissions(home.path().join(KEY_FILE), fs::Permissions::from_mode(0o700)).unwrap();
        let error = Identity::load_or_create(home.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn the_certificate_carries_the_key_that_names_the_device() {
        let identity = Identity::ephemeral();
        let certificate = identity.certificate();
        let parsed = rustls::server::ParsedCertificate::try_from(&certificate).unwrap();
        let spki = parsed.subject_public_key_info();
        assert_eq!(PublicKey::from_spki(&spki), Some(identity.public()));
        assert_eq!(DeviceId(*blake3::hash(&spki).as_bytes()), identity.device());
        assert!(identity.public().verifies(b"hello", &identity.sign(b"hello")));
        assert!(!identity.public().verifies(b"hullo", &identity.sign(b"hello")));
    }
}
