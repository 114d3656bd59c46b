//! The `zenith` command. See README.md; everything it does is done by `control_plane`.

mod args;
mod commands;
mod failure;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use args::Arguments;
use failure::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::report_arguments(&error),
    };
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    match failure {
        // Whoever read our output has seen enough, as in `zenith pg logs main | head`.
        Failure::ReaderGone => ExitCode::SUCCESS,
        Failure::ControlPlane(error) => {
            failure::print(&error.to_string());
            ExitCode::from(failure::exit_code(error))
        }
        Failure::Other(error) => {
            failure::print(&format!("{error:#}"));
            ExitCode::from(failure::FAILED)
        }
    }
}
