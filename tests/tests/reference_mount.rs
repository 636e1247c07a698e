//! Random filesystem operations on a mount and on an ordinary directory, compared after each.

use kith_tests::device::Device;
use kith_tests::lab;
use kith_tests::reference::Run;
use kith_tests::scratch::Scratch;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The seeds to run: those of `KITH_REFERENCE_SEEDS`, or a few.
fn seeds() -> Vec<u64> {
    let given = std::env::var("KITH_REFERENCE_SEEDS").unwrap_or_else(|_| "1 2 3".into());
    given.split_whitespace().map(|seed| seed.parse().expect("a seed is a number")).collect()
}

#[test]
fn a_mount_behaves_as_an_ordinary_directory() {
    let operations = std::env::var("KITH_REFERENCE_OPERATIONS").unwrap_or_else(|_| "2000".into());
    let operations: usize = operations.parse().expect("how many operations is a number");
    for seed in seeds() {
        let Some(lab) = lab::or_skip(1) else { return };
        let scratch = Scratch::new();
        let mut device = Device::stopped(&scratch, Some((&lab, 1)), "laptop");
        device.live_longer(Duration::from_millis(20 * operations as u64));
        device.run();
        // On the disk that cargo builds on, which is an ordinary one; /tmp may not be.
        let reference = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is there");
        let tested = device.path("tested");
        fs::create_dir(&tested).expect("the mount can be written");
        let mut run = Run::new(seed, &tested, reference.path());
        run.go(operations);
        run.close();
        run.compare();
        // What the kernel remembered, the disk must know too.
        let ended = device.terminate(Duration::from_secs(30));
        assert_eq!(ended.code(), Some(0));
        device.run();
        run.compare();
        run.go(operations / 10);
        // And what was never closed is gone on neither side, killed or not.
        run.close();
        assert_eq!(remains(&device), Vec::<PathBuf>::new());
    }
}

/// What is in the mount beside the tested directory.
fn remains(device: &Device) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.mount()).expect("the mount can be read");
    let names = entries.map(|entry| PathBuf::from(entry.expect("it can be read").file_name()));
    names.filter(|name| name.as_os_str() != "tested").collect()
}
