//! Measures a share of very many entries in a store, without daemons: `scale [FILES] [DIRECTORY]`,
//! 1,000,000 files in a directory of its own if not told. 10,000,000 take about 6 GB.

use kith_tests::scale::measure;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let files = words.next().map_or(Ok(1_000_000), |word| word.parse::<u64>());
    let Ok(files) = files else {
        eprintln!("The first argument is how many files there are to be.");
        return ExitCode::from(2);
    };
    let scratch = tempfile::tempdir().expect("there is a place for temporary files");
    let directory = words.next().map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let measured = measure(&directory, files);
    for step in &measured.steps {
        let most = step.most_resident_bytes.map_or(0.0, |bytes| bytes as f64 / 1_048_576.0);
        println!("{:<32} {:>10.2} s, at most {most:.0} MiB resident", step.what, step.seconds);
    }
    let each = measured.bytes as f64 / files as f64;
    println!("{} entries arrived; {each:.0} bytes on disk for each file", measured.entries);
    ExitCode::SUCCESS
}
