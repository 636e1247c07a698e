//! A daemon starts again, as after an upgrade: the folder stays mounted, and who works in it goes on.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::{Device, Outcome};
use kith_tests::folder::Folder;
use kith_tests::random::Random;
use kith_tests::scratch::is_mounted;
use kith_tests::{binary, grove, notice, pulse};
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Starts a device's daemon again.
fn restart(device: &Device) {
    let outcome = device.ask(&["restart"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("stayed mounted"), "{}", outcome.stdout);
}

fn names_in(at: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(at).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn both(name: &str) -> [String; 2] {
    [format!("{name}, the first half, "), format!("{name}, the second half")]
}

#[test]
fn what_is_open_stays_open() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = |name: &str| folder.path(name);
    let process = folder.device.process();

    // A file that is being written, in each way that a file comes to be written.
    fs::write(path("appended"), "before, ").unwrap();
    fs::write(path("written over"), "x".repeat(100)).unwrap();
    fs::write(path("emptied"), "x".repeat(100)).unwrap();
    fs::write(path("gone"), "as it was").unwrap();
    folder.device.synced(PATIENCE);
    let mut writers: BTreeMap<&str, File> = BTreeMap::new();
    let options = |name: &str| match name {
        "appended" => OpenOptions::new().append(true).open(path(name)),
        "written over" => OpenOptions::new().write(true).open(path(name)),
        "new, and shut out" => OpenOptions::new().write(true).create_new(true).open(path(name)),
        _ => File::create(path(name)),
    };
    for name in ["appended", "written over", "emptied", "new", "new, and shut out"] {
        let mut file = options(name).unwrap();
        file.write_all(both(name)[0].as_bytes()).unwrap();
        writers.insert(name, file);
    }
    writers["new"].sync_all().unwrap();
    let mut empty = File::create(path("nothing written yet")).unwrap();
    // Larger than what is held in memory.
    let noise = Random::new(1).bytes(3 << 20);
    let mut large = File::create(path("large")).unwrap();
    large.write_all(&noise).unwrap();

    // Files that no name leads to any more: one that is read, and one that is written.
    fs::write(path("removed"), "still here").unwrap();
    let mut removed = File::open(path("removed")).unwrap();
    fs::remove_file(path("removed")).unwrap();
    let mut nameless =
        File::options().read(true).write(true).create_new(true).open(path("temporary")).unwrap();
    fs::remove_file(path("temporary")).unwrap();
    nameless.write_all(b"one, ").unwrap();
    let mut gone = OpenOptions::new().append(true).open(path("gone")).unwrap();
    fs::remove_file(path("gone")).unwrap();
    // And one whose name leads to another file.
    fs::write(path("replaced"), "the old one").unwrap();
    let replaced = File::open(path("replaced")).unwrap();
    fs::write(path("replacement"), "the new one").unwrap();
    fs::rename(path("replacement"), path("replaced")).unwrap();

    // A listing that has begun, and a lock.
    fs::create_dir(path("many")).unwrap();
    for number in 0..3000 {
        File::create(path("many").join(format!("{number:04} {}", "long".repeat(20)))).unwrap();
    }
    let mut listing = fs::read_dir(path("many")).unwrap();
    let mut listed: Vec<_> = listing.by_ref().take(10).map(|it| it.unwrap().file_name()).collect();
    rustix::fs::flock(&writers["new"], FlockOperation::LockExclusive).unwrap();
    let other = File::open(path("new")).unwrap();
    let number = fs::metadata(path("appended")).unwrap().ino();

    for _ in 0..2 {
        restart(&folder.device);
    }
    assert_eq!(folder.device.process(), process, "it is the same process");

    for (name, file) in &mut writers {
        file.write_all(both(name)[1].as_bytes()).unwrap();
    }
    empty.write_all(b"now").unwrap();
    large.write_all(b"the end").unwrap();
    let mut text = String::new();
    removed.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    nameless.write_all(b"two").unwrap();
    gone.write_all(b", and nobody's any more").unwrap();
    let mut bytes = [0; 8];
    nameless.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"one, two");
    assert_eq!(nameless.metadata().unwrap().nlink(), 0);
    let mut bytes = [0; 11];
    replaced.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"the old one");
    listed.extend(listing.map(|it| it.unwrap().file_name()));
    let different: BTreeSet<_> = listed.iter().collect();
    assert_eq!((listed.len(), different.len()), (3000, 3000));
    let refused = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
    assert_eq!(fs::metadata(path("appended")).unwrap().ino(), number);

    drop((writers, empty, large, removed, nameless, gone, replaced, other));
    // Not from what the kernel remembers.
    let mut folder = folder;
    folder.device.terminate(PATIENCE);
    folder.device.run();
    let path = |name: &str| folder.path(name);
    let expected = |name: &str| match name {
        "appended" => format!("before, {}", both(name).concat()),
        "written over" => format!("{:x<100}", both(name).concat()),
        _ => both(name).concat(),
    };
    for name in ["appended", "written over", "emptied", "new", "new, and shut out"] {
        assert_eq!(fs::read_to_string(path(name)).unwrap(), expected(name));
    }
    assert_eq!(fs::read_to_string(path("nothing written yet")).unwrap(), "now");
    assert!(fs::read(path("large")).unwrap() == [&noise[..], b"the end"].concat());
    assert_eq!(fs::read_to_string(path("replaced")).unwrap(), "the new one");
    let names = names_in(folder.mount());
    let all = [
        "appended",
        "written over",
        "emptied",
        "new",
        "new, and shut out",
        "nothing written yet",
        "large",
        "replaced",
        "many",
    ];
    assert_eq!(names, all.into_iter().map(str::to_owned).collect());
}

/// Works in a directory like a program that saves its files, and checks each, until `over`. Answers how
/// many it saved.
fn save_until(over: &AtomicBool, at: &Path, seed: u64) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut random = Random::new(seed);
    let mut saved = BTreeMap::new();
    fs::create_dir(at).unwrap();
    let mut round = 0;
    while !over.load(Ordering::SeqCst) || round < 100 {
        round += 1;
        let bytes = {
            let len = usize::try_from(random.below(40_000)).unwrap();
            random.bytes(len)
        };
        let path = at.join(format!("file {}", random.below(50)));
        let beside = at.join("being saved");
        let mut file = OpenOptions::new().write(true).create_new(true).open(&beside).unwrap();
        let half = bytes.len() / 2;
        file.write_all(&bytes[..half]).unwrap();
        if random.chance(30) {
            file.sync_all().unwrap();
        }
        file.write_all(&bytes[half..]).unwrap();
        drop(file);
        fs::rename(&beside, &path).unwrap();
        let mut found = Vec::new();
        let mut file = File::open(&path).unwrap();
        file.read_to_end(&mut found).unwrap();
        assert!(found == bytes, "{} in round {round}, seed {seed}", path.display());
        file.seek(SeekFrom::Start(0)).unwrap();
        if random.chance(20) {
            fs::remove_file(&path).unwrap();
            assert!(!path.exists());
            saved.remove(&path);
        } else {
            saved.insert(path, bytes);
        }
        if random.chance(20) {
            let directory = at.join("directory");
            fs::create_dir(&directory).unwrap();
            fs::create_dir(directory.join("within")).unwrap();
            fs::rename(directory.join("within"), at.join("without")).unwrap();
            fs::remove_dir(at.join("without")).unwrap();
            fs::remove_dir(&directory).unwrap();
        }
    }
    saved
}

#[test]
fn programs_that_work_meanwhile_notice_nothing() {
    let Some(mut folder) = Folder::or_skip() else { return };
    let over = AtomicBool::new(false);
    let saved = std::thread::scope(|scope| {
        let programs: Vec<_> = (0..3)
            .map(|number| {
                let (at, over) = (folder.path(format!("program {number}")), &over);
                scope.spawn(move || save_until(over, &at, number))
            })
            .collect();
        for _ in 0..8 {
            restart(&folder.device);
        }
        over.store(true, Ordering::SeqCst);
        programs.into_iter().flat_map(|program| program.join().unwrap()).collect::<BTreeMap<_, _>>()
    });
    notice::say(&format!("{} files were saved over 8 restarts", saved.len()));
    folder.device.terminate(PATIENCE);
    folder.device.run();
    let mut found = BTreeMap::new();
    for number in 0..3 {
        for entry in fs::read_dir(folder.path(format!("program {number}"))).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&saved));
    assert!(found == saved);
}

#[test]
fn a_file_goes_on_as_it_was_opened_though_another_device_replaces_it_meanwhile() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let [laptop, desktop] = [0, 1].map(|at| &circle[at]);
    fs::write(laptop.path("file"), "the old version").unwrap();
    circle.settle();
    let opened = File::open(laptop.path("file")).unwrap();
    assert_eq!(fs::read_to_string(laptop.path("file")).unwrap(), "the old version");
    fs::write(desktop.path("file"), "the new one").unwrap();
    fs::write(desktop.path("another"), "and another").unwrap();
    restart(laptop);
    circle.settle();
    let mut bytes = [0; 15];
    opened.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"the old version");
    restart(laptop);
    opened.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"the old version");
    assert_eq!(fs::read_to_string(laptop.path("file")).unwrap(), "the new one");
    assert_eq!(fs::read_to_string(laptop.path("another")).unwrap(), "and another");
    assert_eq!(names_in(laptop.mount()).len(), 2);
}

#[test]
fn a_read_that_waits_for_another_device_is_answered_by_the_next_daemon() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    circle.lab.shape("20mbit");
    grove::noise(&circle[0].path("far away"), 1, 15_000_000).unwrap();
    let path = circle[1].path("far away");
    pulse::until(PATIENCE, "the desktop lists it", || {
        fs::metadata(&path).map(drop).map_err(|error| error.to_string())
    });
    let file = File::open(&path).unwrap();
    circle.lab.cut(1);
    let mut last = [0; 4096];
    std::thread::scope(|scope| {
        let (told, thread) = std::sync::mpsc::channel();
        let (file, last) = (&file, &mut last);
        let reading = scope.spawn(move || {
            told.send(rustix::thread::gettid()).unwrap();
            file.read_exact_at(last, 14_500_000)
        });
        let waits = format!("/proc/self/task/{}/wchan", thread.recv().unwrap());
        pulse::until(PATIENCE, "the read waits", || match fs::read_to_string(&waits) {
            Ok(place) if place.starts_with("request_wait") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        restart(&circle[1]);
        circle.lab.join(1);
        reading.join().unwrap().unwrap();
    });
    circle.settle();
    let mut original = [0; 4096];
    File::open(circle[0].path("far away"))
        .unwrap()
        .read_exact_at(&mut original, 14_500_000)
        .unwrap();
    assert!(last == original);
}

#[test]
fn a_restart_that_is_killed_loses_nothing_that_was_saved() {
    let Some(mut folder) = Folder::or_skip() else { return };
    let mut random = Random::new(11);
    let mut expected = BTreeMap::new();
    let mut cut_short = 0;
    for round in 0..12 {
        let mut open = Vec::new();
        for number in 0..6 {
            let path = folder.path(format!("{round} {number}"));
            let bytes = random.bytes(20_000);
            let mut file = File::create(&path).unwrap();
            file.write_all(&bytes).unwrap();
            file.sync_all().unwrap();
            if number % 2 == 0 {
                open.push(file);
            }
            expected.insert(path, bytes);
        }
        let begun = Instant::now();
        let mut asking = folder.device.kith();
        asking.arg("restart").stdout(Stdio::null()).stderr(Stdio::null());
        let mut asking = asking.spawn().unwrap();
        let moment = Duration::from_micros(random.below(400_000));
        while begun.elapsed() < moment {
            std::thread::yield_now();
        }
        folder.device.kill();
        asking.kill().unwrap();
        cut_short += u32::from(!asking.wait().unwrap().success());
        drop(open);
        folder.device.run();
        for (path, bytes) in &expected {
            let found = fs::read(path);
            let found = found.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found == *bytes, "{} after round {round}", path.display());
        }
    }
    notice::say(&format!("{cut_short} of 12 restarts were cut short"));
}

/// An installation that is started like a person does, from a copy of the program.
struct Upgraded {
    folder: Folder,
    program: PathBuf,
    home: PathBuf,
}

impl Upgraded {
    fn or_skip() -> Option<Upgraded> {
        let folder = Folder::or_skip()?;
        let (program, home) =
            (folder.scratch.path().join("kith"), folder.scratch.path().join("home"));
        fs::copy(binary::kith(), &program).unwrap();
        let upgraded = Upgraded { folder, program, home };
        let up = upgraded.ask(&["up"]);
        assert_eq!(up.code, Some(0), "{}", up.stderr);
        Some(upgraded)
    }

    /// Asks the program as it was built, whatever lies in the copy's place.
    fn ask(&self, arguments: &[&str]) -> Outcome {
        let mut command =
            Command::new(if arguments == ["up"] { &self.program } else { binary::kith() });
        command.arg("--home").arg(&self.home).args(arguments);
        self.folder.device.outcome(command, PATIENCE)
    }

    /// Puts another program in the place of the one that runs.
    fn put(&self, other: &Path) {
        let beside = self.program.with_extension("new");
        fs::copy(other, &beside).unwrap();
        fs::rename(&beside, &self.program).unwrap();
    }

    fn mount(&self) -> PathBuf {
        self.home.join("Kith")
    }

    /// The program that the daemon runs, as the kernel names it.
    fn running(&self) -> String {
        let lock = fs::read_to_string(self.home.join("data/daemon.lock")).unwrap();
        let process: u32 = lock.split_whitespace().next().unwrap().parse().unwrap();
        fs::read_link(format!("/proc/{process}/exe")).unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.ask(&["down"]);
    }
}

#[test]
fn an_upgrade_starts_the_program_that_took_the_place_of_the_one_that_ran() {
    let Some(upgraded) = Upgraded::or_skip() else { return };
    let mut file = File::create(upgraded.mount().join("file")).unwrap();
    file.write_all(b"one, ").unwrap();
    upgraded.put(binary::kith());
    assert!(upgraded.running().ends_with(" (deleted)"), "{}", upgraded.running());
    let doctor = upgraded.ask(&["doctor"]).stdout;
    assert!(doctor.contains("kith restart"), "{doctor}");
    let outcome = upgraded.ask(&["restart", "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains(r#""stayed_mounted":true"#), "{}", outcome.stdout);
    assert_eq!(Path::new(&upgraded.running()), upgraded.program);
    let doctor = upgraded.ask(&["doctor"]).stdout;
    assert!(!doctor.contains("kith restart"), "{doctor}");
    file.write_all(b"two").unwrap();
    drop(file);

    // What is no program: the one that runs goes on.
    upgraded.put(Path::new("/etc/passwd"));
    assert_eq!(upgraded.ask(&["restart"]).code, Some(0));
    assert!(upgraded.running().ends_with(" (deleted)"), "{}", upgraded.running());
    assert_eq!(fs::read_to_string(upgraded.mount().join("file")).unwrap(), "one, two");

    // Where the settings name another place by now, the folder goes there.
    let elsewhere = upgraded.folder.scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let settings = upgraded.home.join("config.toml");
    fs::write(&settings, format!("mount = {:?}", elsewhere.to_str().unwrap())).unwrap();
    let outcome = upgraded.ask(&["restart"]);
    assert!(outcome.stdout.contains("was mounted anew"), "{outcome:?}");
    assert_eq!(fs::read_to_string(elsewhere.join("file")).unwrap(), "one, two");
    assert!(!is_mounted(&upgraded.mount()));
    fs::remove_file(&settings).unwrap();
    assert_eq!(upgraded.ask(&["restart"]).code, Some(0));

    // A program that doesn't become a daemon: the folder is gone until there is one.
    upgraded.put(Path::new("/bin/false"));
    let mut restart = Command::new(binary::kith());
    restart.arg("--home").arg(&upgraded.home).arg("restart");
    let mut restart = restart.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    pulse::until(PATIENCE, "nobody answers any more", || match fs::read_dir(upgraded.mount()) {
        Err(error) if error.raw_os_error() == Some(107) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    restart.kill().unwrap();
    restart.wait().unwrap();
    upgraded.put(binary::kith());
    assert_eq!(upgraded.ask(&["up"]).code, Some(0));
    assert_eq!(fs::read_to_string(upgraded.mount().join("file")).unwrap(), "one, two");
    assert!(is_mounted(&upgraded.mount()));
}
