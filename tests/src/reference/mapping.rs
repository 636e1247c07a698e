//! Another process: it writes through shared mappings, which Rust calls unsafe, and asks for locks
//! on records, which hold between processes only.

use super::side::{Answer, Outcome};
use rustix::io::Errno;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Answers each line of a task, a path in hexadecimal digits, two offsets and a number: with how
/// many bytes it filled or locked, with the negative number of an error, or with `no` for what
/// can't be mapped.
const PROGRAM: &str = r"
import fcntl, mmap, os, stat, sys
for line in sys.stdin:
    task, path, start, end, number = line.split()
    start, end, number = int(start), int(end), int(number)
    try:
        file = os.open(bytes.fromhex(path), os.O_RDWR | os.O_NONBLOCK)
        try:
            answer = 'no'
            status = os.fstat(file)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            if task == 'lock' and stat.S_ISREG(status.st_mode):
                fcntl.lockf(file, number | fcntl.LOCK_NB, end - start, start)
                answer = end - start
            elif task == 'map' and size:
                start, end = min(start, size), min(end, size)
                with mmap.mmap(file, size) as mapped:
                    mapped[start:end] = bytes([number]) * (end - start)
                answer = end - start
        finally:
            os.close(file)
    except OSError as error:
        answer = -error.errno
    print(answer, flush=True)
";

/// A process that maps and locks files.
#[derive(Debug, Default)]
pub struct Mapper {
    process: Option<Process>,
    missing: bool,
}

#[derive(Debug)]
struct Process {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start() -> std::io::Result<Process> {
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let questions = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Process { child, questions, answers })
    }
}

impl Mapper {
    /// Fills a range of a file, as far as the file goes, with a byte.
    pub(super) fn fill(&mut self, path: &Path, offset: u64, len: u64, byte: u8) -> Outcome {
        self.ask("map", path, offset, len, byte)
    }

    /// Tries to lock a range of a file, and lets it go.
    pub(super) fn lock(&mut self, path: &Path, offset: u64, len: u64, shared: bool) -> Outcome {
        // LOCK_SH and LOCK_EX.
        self.ask("lock", path, offset, len, if shared { 1 } else { 2 })
    }

    fn ask(&mut self, task: &str, path: &Path, offset: u64, len: u64, number: u8) -> Outcome {
        if self.process.is_none() && !self.missing {
            match Process::start() {
                Ok(process) => self.process = Some(process),
                Err(error) => {
                    self.missing = true;
                    crate::notice::skip(&format!(
                        "mapped writes and locks between processes need python3: {error}"
                    ));
                }
            }
        }
        let Some(process) = &mut self.process else { return Ok(Answer::Empty) };
        let digits = path.as_os_str().as_bytes().iter().fold(String::new(), |mut digits, byte| {
            digits += &format!("{byte:02x}");
            digits
        });
        let mut answer = String::new();
        writeln!(process.questions, "{task} {digits} {offset} {} {number}", offset + len)
            .and_then(|()| process.answers.read_line(&mut answer))
            .expect("the program answers");
        match answer.trim().parse::<i64>() {
            Ok(count) => match u64::try_from(count) {
                Ok(count) => Ok(Answer::Count(count)),
                Err(_) => {
                    let number = i32::try_from(-count).expect("errors have small numbers");
                    Err(Errno::from_raw_os_error(number))
                }
            },
            Err(_) => Ok(Answer::Empty),
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ended_already = process.child.kill();
            let _reaped = process.child.wait();
        }
    }
}
