//! One file per command.

mod branch;
mod checkpoint;
mod compact;
mod gc;
mod hydrate;
mod init;
mod page;
mod pg;
mod psql;
mod server;
mod tag;
mod verify;

use std::process::ExitCode;

use control_plane::{Repository, StopMode};

use crate::args::{Arguments, Command};
use crate::failure::Failure;

/// What a command ends with.
pub type Ended = Result<ExitCode, Failure>;

/// Does what was asked for.
pub fn run(arguments: Arguments) -> Ended {
    let Arguments { repo, output, command } = arguments;
    let discover = || Repository::discover(repo.as_deref());
    match command {
        Command::Init(options) => init::run(repo.as_deref(), &options, output),
        Command::Start(options) => server::start(&mut discover()?, &options, output),
        Command::Stop(options) => server::stop(&discover()?, stop_mode(options.immediate), output),
        Command::Restart(options) => {
            server::restart(&mut discover()?, stop_mode(options.immediate), output)
        }
        Command::Status => server::status(&discover()?, output),
        Command::Branch(options) => branch::run(&discover()?, &options, output),
        Command::Checkpoint(options) => checkpoint::run(&discover()?, &options, output),
        Command::Compact(options) => compact::run(&discover()?, &options, output),
        Command::Gc(options) => gc::run(&discover()?, &options, output),
        Command::Tag(options) => tag::run(&discover()?, &options, output),
        Command::Pg(command) => pg::run(&discover()?, command, output),
        Command::Page(options) => page::run(&discover()?, &options, output),
        Command::Verify(options) => verify::run(&discover()?, &options, output),
        Command::Psql(options) => psql::run(&discover()?, &options),
    }
}

fn stop_mode(immediate: bool) -> StopMode {
    if immediate { StopMode::Immediate } else { StopMode::Fast }
}
