//! Kith's one binary: a client of the daemon, and the daemon itself.

mod argument;
mod demo;
mod doctor;
mod events;
mod failure;
mod launch;
mod meant;
mod pairing;
mod restarting;
mod running;
mod screen;
mod status;

use argument::{Arguments, Command, Devices, Shares};
use clap::{CommandFactory, Parser};
use failure::Failure;
use kith_daemon::paths::Paths;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match obey(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json);
            ExitCode::FAILURE
        }
    }
}

fn obey(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { home, json, command } = arguments;
    let paths = || Paths::find(home.as_deref());
    match command {
        Command::Up(mounting) => running::up(&paths()?, &mounting, json),
        Command::Down => running::down(&paths()?, json),
        Command::Restart => restarting::restart(&paths()?, json),
        Command::Daemon(foreground) => running::foreground(paths()?, foreground),
        Command::Status { watch } => status::show(&paths()?, watch, json),
        Command::Invite => pairing::invite(&paths()?, json),
        Command::Join { code, addr } => pairing::join(&paths()?, &code, &addr, json),
        Command::Devices { command } => {
            status::devices(&paths()?, &command.unwrap_or(Devices::List), json)
        }
        Command::Shares { command } => {
            status::shares(&paths()?, &command.unwrap_or(Shares::List), json)
        }
        Command::Meant { device } => meant::mean(&paths()?, device, json),
        Command::Events => events::follow(&paths()?, json),
        Command::Doctor => doctor::examine(&paths()?, json),
        Command::Demo => demo::run(json),
        Command::Completions { shell } => print(|out| {
            clap_complete::generate(shell, &mut Arguments::command(), "kith", out);
            Ok(())
        }),
        Command::Man => {
            print(|mut out| clap_mangen::Man::new(Arguments::command()).render(&mut out))
        }
    }
}

/// Prints what is made in memory first, so that a reader that goes away does no harm.
fn print(make: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Result<(), Failure> {
    let mut text = Vec::new();
    let written = make(&mut text).and_then(|()| std::io::stdout().write_all(&text));
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("it could not be printed: {error}"), ""))
        }
        _ => Ok(()),
    }
}
