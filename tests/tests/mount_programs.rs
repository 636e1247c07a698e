//! Programs that ask much of a filesystem, at work in the mount of a real daemon.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::access_list::{NOBODY, encoded};
use kith_tests::folder::Folder;
use kith_tests::notice;
use kith_tests::tree::Tree;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

/// A folder, if this machine can mount one and has a program; else this is said aloud.
fn folder_for(program: &str, argument: &str) -> Option<Folder> {
    if Command::new(program).arg(argument).output().is_err() {
        notice::lacks(program);
        return None;
    }
    Folder::or_skip()
}

/// Runs a program that has to succeed, in a directory.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env("HOME", directory);
    for (name, value) in [("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.org")] {
        command.env(name, value).env(name.replace("AUTHOR", "COMMITTER"), value);
    }
    let output = command.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn git_commits_clones_collects_and_finds_nothing_wrong() {
    let Some(folder) = folder_for("git", "--version") else { return };
    let (mount, disk) = (folder.mount(), folder.scratch.path().join("disk"));
    let repository = mount.join("repository");
    fs::create_dir(&repository).unwrap();
    let git = |arguments: &[&str]| run(&repository, "git", arguments);
    git(&["init", "-q", "-b", "main"]);
    for round in 0..3 {
        for number in 0..60 {
            let directory = repository.join(format!("d{}", number % 6));
            fs::create_dir_all(&directory).unwrap();
            let content = format!("{round} {number}\n").repeat(40);
            fs::write(directory.join(format!("file {number}")), content).unwrap();
        }
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "round"]);
    }
    git(&["mv", "d0", "moved"]);
    git(&["commit", "-q", "-a", "-m", "moved"]);
    git(&["gc", "-q", "--prune=now"]);
    git(&["fsck", "--strict", "--full"]);
    assert_eq!(text(&git(&["status", "--porcelain"])), "");
    // To the disk and back.
    let from = repository.to_str().unwrap();
    run(mount, "git", &["clone", "-q", from, disk.to_str().unwrap()]);
    run(mount, "git", &["clone", "-q", "--no-hardlinks", disk.to_str().unwrap(), "again"]);
    let again = mount.join("again");
    run(&again, "git", &["fsck", "--strict"]);
    let head = text(&git(&["rev-parse", "HEAD"]));
    assert_eq!(text(&run(&again, "git", &["rev-parse", "HEAD"])), head);
    assert_eq!(text(&run(&again, "git", &["status", "--porcelain"])), "");
}

#[test]
fn two_writers_of_a_database_lose_nothing_and_its_integrity_holds() {
    const ROWS: usize = 60;
    let Some(folder) = folder_for("sqlite3", "--version") else { return };
    let mount = folder.mount();
    let sqlite = |sql: &str| text(&run(mount, "sqlite3", &["-bail", "data.db", sql]));
    assert_eq!(sqlite(include_str!("programs/made.sql")), "wal");
    std::thread::scope(|scope| {
        for writer in ["0", "1"] {
            scope.spawn(move || {
                let one = include_str!("programs/written.sql").replace("WRITER", writer);
                let all: String =
                    (0..ROWS).map(|number| one.replace("NUMBER", &number.to_string())).collect();
                let mut command = Command::new("sqlite3");
                let mut process = command
                    .args(["-bail", "-cmd", ".timeout 30000", "data.db"])
                    .current_dir(mount)
                    .stdin(std::process::Stdio::piped())
                    .spawn()
                    .unwrap();
                process.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
                assert!(process.wait().unwrap().success());
            });
        }
    });
    let checked = sqlite(include_str!("programs/checked.sql"));
    assert_eq!(checked, format!("ok\n{ROWS}|{ROWS}\n{ROWS}|{ROWS}\n0|0|0\nok"));
}

#[test]
fn rsync_brings_everything_there_and_back() {
    let Some(folder) = folder_for("rsync", "--version") else { return };
    let (here, back) = (folder.scratch.path().join("here"), folder.scratch.path().join("back"));
    fs::create_dir_all(here.join("directory/inner")).unwrap();
    fs::create_dir(&back).unwrap();
    fs::write(here.join("file"), vec![5; 300_000]).unwrap();
    fs::hard_link(here.join("file"), here.join("directory/other name")).unwrap();
    std::os::unix::fs::symlink("file", here.join("link")).unwrap();
    fs::write(here.join("directory/program"), "#!/bin/sh\n").unwrap();
    let mode = fs::Permissions::from_mode(0o4711);
    fs::set_permissions(here.join("directory/program"), mode).unwrap();
    std::os::unix::fs::chown(here.join("directory/inner"), Some(1000), Some(33)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        here.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    // A disk that has neither can still be brought from.
    let coloured = xattr::set(here.join("file"), "user.colour", b"green").is_ok();
    let entries = [(1, 4, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (16, 4, NOBODY), (32, 4, NOBODY)];
    let list = encoded(&entries);
    let listed = xattr::set(here.join("file"), "system.posix_acl_access", &list).is_ok();
    let mount = folder.mount();
    let copies = |from: &Path, to: &Path| {
        let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
        run(mount, "rsync", &["-aHAX", "--numeric-ids", &from, &to]);
        // A second time there is nothing to do.
        let again = run(mount, "rsync", &["-aHAXi", "--numeric-ids", &from, &to]);
        assert_eq!(text(&again), "");
    };
    copies(&here, &mount.join("there"));
    copies(&mount.join("there"), &back);
    let differences = Tree::read(&here).unwrap().differences(&Tree::read(&back).unwrap(), 10);
    assert!(differences.is_empty(), "{differences:?}");
    let there = mount.join("there/file");
    assert_eq!(fs::metadata(&there).unwrap().nlink(), 2);
    if coloured {
        assert_eq!(xattr::get(&there, "user.colour").unwrap().unwrap(), b"green");
    }
    if listed {
        assert_eq!(xattr::get(&there, "system.posix_acl_access").unwrap(), Some(list));
    }
}

#[test]
fn an_editor_saves_as_editors_do() {
    let Some(folder) = folder_for("true", "--version") else { return };
    let mount = folder.mount();
    let path = mount.join("text");
    fs::write(&path, "first").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let number = fs::metadata(&path).unwrap().ino();
    // By a new file renamed over the old one, which is kept beside it meanwhile.
    for round in 0..20 {
        let content = format!("round {round}").repeat(round + 1);
        fs::hard_link(&path, mount.join("text~")).unwrap();
        let mut new = fs::File::create_new(mount.join(".text.swp")).unwrap();
        new.write_all(content.as_bytes()).unwrap();
        new.set_permissions(fs::metadata(&path).unwrap().permissions()).unwrap();
        new.sync_all().unwrap();
        drop(new);
        fs::rename(mount.join(".text.swp"), &path).unwrap();
        fs::File::open(mount).unwrap().sync_all().unwrap();
        fs::remove_file(mount.join("text~")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o640, 1));
    assert_ne!(metadata.ino(), number);
    // And in place.
    fs::write(&path, "shorter").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), metadata.ino());
    assert_eq!(fs::read_dir(mount).unwrap().count(), 1);
}

#[test]
fn cargo_builds_into_the_folder() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let Some(folder) = folder_for(&cargo, "--version") else { return };
    let project = folder.path("project");
    fs::create_dir_all(project.join("src")).unwrap();
    let manifest = "[package]\nname = 'small'\nversion = '0.1.0'\nedition = '2021'\n[workspace]\n";
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    let build = |says: &str| {
        let main = format!("fn main() {{ println!(\"{says}\"); }}");
        fs::write(project.join("src/main.rs"), main).unwrap();
        let mut command = Command::new(&cargo);
        command.args(["run", "--quiet", "--offline", "--target-dir"]).arg(project.join("target"));
        let output = command.current_dir(&project).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text(&output), says);
    };
    build("one");
    // What it finds changed, by times and its own notes, it builds again.
    build("two");
}
