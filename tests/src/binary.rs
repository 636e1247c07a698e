//! The real program under test, built by cargo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory that the repository is checked out in.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a member of the workspace")
}

/// The path of `kith`, built once a process in the profile of this test, or as `KITH_BINARY` says.
///
/// # Panics
/// If it can't be built; the message is the compiler's.
pub fn kith() -> &'static Path {
    static KITH: OnceLock<PathBuf> = OnceLock::new();
    KITH.get_or_init(|| match std::env::var_os("KITH_BINARY") {
        Some(given) => PathBuf::from(given),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its own program");
    let (target, profile) = place(&test);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(repository())
        .args(["build", "--quiet", "--package", "kith", "--profile"])
        .arg(if profile == "debug" { "dev" } else { &profile })
        .arg("--target-dir")
        .arg(&target)
        .output()
        .expect("cargo can be run");
    assert!(
        built.status.success(),
        "kith could not be built:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    target.join(profile).join("kith")
}

/// The target directory and the profile's directory that a test program lies in.
fn place(test: &Path) -> (PathBuf, String) {
    let mut directory = test.parent().expect("a program lies in a directory");
    if directory.ends_with("deps") {
        directory = directory.parent().expect("deps lies in a profile's directory");
    }
    let profile = directory.file_name().expect("a profile's directory has a name");
    let target = directory.parent().expect("a profile lies in a target directory");
    (target.to_owned(), profile.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_looked_for_beside_the_test() {
        for (test, target, profile) in [
            ("/r/target/debug/deps/story-1f", "/r/target", "debug"),
            ("/t/release/measure", "/t", "release"),
        ] {
            assert_eq!(place(Path::new(test)), (PathBuf::from(target), profile.into()));
        }
    }

    #[test]
    fn the_repository_is_where_the_workspace_is() {
        assert!(repository().join("Cargo.toml").is_file());
    }
}
