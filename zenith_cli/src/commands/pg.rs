//! `zenith pg`: computes.

use std::fs::File;
use std::io;
use std::process::ExitCode;

use anyhow::Context;
use control_plane::{Advance, Compute, ComputeOptions, Error, Mode, Outcome, Repository};
use serde_json::{Value, json};

use super::{Ended, hydrate, stop_mode};
use crate::args::{CreateArguments, PgCommand};
use crate::failure::Failure;
use crate::output::{self, Format};

pub fn run(repository: &Repository, command: PgCommand, format: Format) -> Ended {
    match command {
        PgCommand::Create(arguments) => {
            let compute = create(repository, &arguments)?;
            print(&compute, format)?;
        }
        PgCommand::Start(arguments) => start(repository, &arguments, format)?,
        PgCommand::Stop(arguments) => {
            let compute = repository.compute(&arguments.name)?;
            match compute.stop(stop_mode(arguments.immediate))? {
                Outcome::Done => output::say(&format!("compute {} has stopped", compute.name())),
                Outcome::AlreadySo => {
                    output::say(&format!("compute {} does not run", compute.name()));
                }
            }
            print(&compute, format)?;
        }
        PgCommand::Advance(arguments) => {
            let compute = repository.compute(&arguments.name)?;
            let Advance { from, to } = compute.advance_base(arguments.lsn)?;
            output::say(&format!("base LSN of compute {}: {from} -> {to}", compute.name()));
            print(&compute, format)?;
        }
        PgCommand::Hydrate(arguments) => {
            hydrate::run(&repository.compute(&arguments.name)?, format)?;
        }
        PgCommand::List => list(repository, format)?,
        PgCommand::Destroy(arguments) => {
            let compute = match repository.compute(&arguments.name) {
                Err(Error::NotFound { .. })
                    if repository.forget_lost_compute(&arguments.name)? =>
                {
                    output::say(&format!(
                        "the directory of compute {} is gone already; no history is kept for it any more",
                        arguments.name
                    ));
                    return Ok(ExitCode::SUCCESS);
                }
                found => found?,
            };
            let outside = compute.outside_tablespaces();
            compute.destroy()?;
            output::say(&format!("compute {} is gone", compute.name()));
            for folder in outside {
                output::say(&format!(
                    "its tablespace in {} was left as it is; nothing here needs those files",
                    folder.display()
                ));
            }
        }
        PgCommand::Logs(arguments) => logs(&repository.compute(&arguments.name)?)?,
        PgCommand::Connstr(arguments) => {
            let connstr = repository.compute(&arguments.name)?.connstr(&arguments.database);
            match format {
                Format::Table => output::line(&connstr)?,
                Format::Json => output::json(&json!({ "connstr": connstr }))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(repository: &Repository, arguments: &CreateArguments) -> Result<Compute, Failure> {
    let options = ComputeOptions {
        at: arguments.at.clone(),
        durability: arguments.durability.unwrap_or_default(),
        port: arguments.port,
    };
    let compute = Compute::create(repository, &arguments.name, &options)?;
    if let Some(replaced) = compute.replaced() {
        output::say(&format!(
            "compute {} of branch {} is gone; compute {} takes over at {}, the end of what the page \
             server has received, with durability {}; if the old one comes back it is refused",
            replaced.name,
            compute.branch(),
            compute.name(),
            replaced.at,
            compute.durability(),
        ));
    }
    let place = format!("{}@{}", compute.branch(), compute.base_lsn());
    output::say(&match compute.mode() {
        Mode::ReadWrite => format!("made compute {} at {place}", compute.name()),
        Mode::Detached => format!(
            "made compute {} at {place}; it is detached: what it changes is not kept in any branch",
            compute.name()
        ),
    });
    Ok(compute)
}

fn start(
    repository: &Repository,
    arguments: &CreateArguments,
    format: Format,
) -> Result<(), Failure> {
    let compute = match repository.compute(&arguments.name) {
        Err(Error::NotFound { .. }) => match create(repository, arguments) {
            // Somebody else has just made it.
            Err(Failure::ControlPlane(Error::AlreadyExists { .. })) => {
                repository.compute(&arguments.name)?
            }
            made => made?,
        },
        Err(error) => return Err(error.into()),
        Ok(compute) => {
            refuse_changes(&compute, arguments)?;
            compute
        }
    };
    let verb = match compute.start()? {
        Outcome::Done => "runs",
        Outcome::AlreadySo => "already runs",
    };
    output::say(&format!("compute {} {verb} at {}", compute.name(), compute.connstr("postgres")));
    print(&compute, format)
}

/// The options are those of making a compute; one that exists is not remade.
fn refuse_changes(compute: &Compute, arguments: &CreateArguments) -> Result<(), Failure> {
    let same = arguments.at.is_none()
        && arguments.durability.is_none_or(|durability| durability == compute.durability())
        && arguments.port.is_none_or(|port| port == compute.port());
    if same {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "compute {:?} exists already with other options; start it without any, or destroy it first",
        compute.name()
    ))
    .into())
}

fn list(repository: &Repository, format: Format) -> Result<(), Failure> {
    let computes = repository.computes()?;
    let fenced = repository.fenced_computes()?;
    let is_fenced = |compute: &Compute| fenced.contains(compute.name());
    if format == Format::Json {
        let values = computes.iter().map(|compute| {
            let mut value = value(compute);
            value["fenced"] = json!(is_fenced(compute));
            value
        });
        return output::json(&values.collect::<Vec<_>>());
    }
    let rows = computes
        .iter()
        .map(|compute| {
            let status = compute.status();
            vec![
                compute.name().to_owned(),
                compute.branch().to_owned(),
                match is_fenced(compute) {
                    true => format!("{}, fenced", status.state),
                    false => status.state.to_string(),
                },
                compute.mode().to_string(),
                compute.port().to_string(),
                status.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                compute.base_lsn().to_string(),
                compute.durability().to_string(),
            ]
        })
        .collect();
    let headings = ["COMPUTE", "BRANCH", "STATE", "MODE", "PORT", "PID", "BASE LSN", "DURABILITY"];
    output::table(&headings, rows)
}

fn print(compute: &Compute, format: Format) -> Result<(), Failure> {
    if format == Format::Json { output::json(&value(compute)) } else { Ok(()) }
}

fn value(compute: &Compute) -> Value {
    let status = compute.status();
    json!({
        "name": compute.name(),
        "branch": compute.branch(),
        "timeline": compute.timeline().to_string(),
        "mode": compute.mode().to_string(),
        "durability": compute.durability().to_string(),
        "base_lsn": compute.base_lsn().to_string(),
        "state": status.state.to_string(),
        "pid": status.pid,
        "port": compute.port(),
        "connstr": compute.connstr("postgres"),
        "pgdata": compute.pgdata(),
        "log": compute.log(),
    })
}

fn logs(compute: &Compute) -> Result<(), Failure> {
    let path = compute.log();
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            output::say(&format!("compute {} has never been started", compute.name()));
            return Ok(());
        }
        opened => opened.with_context(|| format!("open {}", path.display()))?,
    };
    io::copy(&mut file, &mut io::stdout().lock())?;
    Ok(())
}
