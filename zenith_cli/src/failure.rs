//! How errors end up on the terminal, and which exit code they give.

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use control_plane::Error;

/// Exit code: what was asked for was not done.
pub const FAILED: u8 = 1;
/// Exit code: what was asked for makes no sense.
pub const USAGE: u8 = 2;
/// Exit code: a check has found a difference.
pub const DIFFERENT: u8 = 3;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// The control plane could not do it.
    ControlPlane(Error),
    /// Nobody reads our output any more.
    ReaderGone,
    /// Something of this program's own.
    Other(anyhow::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::ControlPlane(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Other(error)
    }
}

/// Only for output: every other IO error comes with a context.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::ReaderGone
        } else {
            Failure::Other(anyhow::Error::new(error).context("write the output"))
        }
    }
}

/// The exit code for an error of the control plane.
pub fn exit_code(error: &Error) -> u8 {
    match error {
        Error::InvalidArgument(_) => USAGE,
        _ => FAILED,
    }
}

/// Prints an error as one line on stderr.
pub fn print(message: &str) {
    let line = message.split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>();
    eprintln!("zenith: error: {}", line.join(" "));
}

/// Reports arguments that make no sense as one line, and help and version as they are.
pub fn report_arguments(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing can be done if nobody reads it.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ => {
            let text = error.render().to_string();
            // The message proper is the first paragraph; tips and usage follow.
            let message = text.split("\n\n").next().unwrap_or_default();
            let message = message.strip_prefix("error: ").unwrap_or(message);
            print(&format!("{message}; see `zenith --help`"));
            ExitCode::from(USAGE)
        }
    }
}
