//! `zenith start`, `stop`, `restart` and `status`.

use std::process::ExitCode;

use control_plane::{
    Compute, ComputeState, Outcome, Repository, ServerStatus, StartOptions, StopMode,
};
use serde_json::{Map, Value, json};

use super::Ended;
use crate::args::StartArguments;
use crate::failure::Failure;
use crate::output::{self, Format};

pub fn start(repository: &mut Repository, arguments: &StartArguments, format: Format) -> Ended {
    let outcome = repository.start(&StartOptions { port: arguments.port })?;
    let status = repository.status()?;
    let verb = match outcome {
        Outcome::Done => "serves",
        Outcome::AlreadySo => "already runs",
    };
    say_serving(&status, verb);
    if format == Format::Json {
        print_json(&status)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn stop(repository: &Repository, mode: StopMode, format: Format) -> Ended {
    match repository.stop(mode)? {
        Outcome::Done => output::say("the page server has stopped"),
        Outcome::AlreadySo => output::say("the page server does not run"),
    }
    let running = repository.computes()?;
    let running: Vec<&str> = running
        .iter()
        .filter(|compute| compute.status().state != ComputeState::Stopped)
        .map(Compute::name)
        .collect();
    if !running.is_empty() {
        output::say(&format!(
            "computes still run without it and go on when it is back: {}",
            running.join(", ")
        ));
    }
    if format == Format::Json {
        print_json(&repository.status()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn restart(repository: &mut Repository, mode: StopMode, format: Format) -> Ended {
    repository.restart(mode)?;
    let status = repository.status()?;
    say_serving(&status, "serves again");
    if format == Format::Json {
        print_json(&status)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn status(repository: &Repository, format: Format) -> Ended {
    let status = repository.status()?;
    if format == Format::Json {
        print_json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        vec!["repository".to_owned(), status.repository.display().to_string()],
        vec!["running".to_owned(), status.pid.is_some().to_string()],
    ];
    rows.extend(status.pid.map(|pid| vec!["pid".to_owned(), pid.to_string()]));
    if let Some(address) = &status.address {
        rows.push(vec!["connstr".to_owned(), address.tcp.clone()]);
        rows.push(vec!["unix_connstr".to_owned(), address.unix.clone()]);
    }
    rows.push(vec!["log".to_owned(), status.log.display().to_string()]);
    let said: Vec<String> = rows.iter().filter_map(|row| row.first().cloned()).collect();
    let more = status.facts.iter().filter(|(name, _)| !said.contains(name));
    rows.extend(more.map(|(name, value)| vec![name.clone(), value.clone()]));
    output::table(&["FACT", "VALUE"], rows)?;
    Ok(ExitCode::SUCCESS)
}

fn say_serving(status: &ServerStatus, verb: &str) {
    let place = status.address.as_ref().map_or("", |address| address.tcp.as_str());
    let pid = status.pid.unwrap_or_default();
    output::say(&format!("the page server (process {pid}) {verb} at {place}"));
}

fn print_json(status: &ServerStatus) -> Result<(), Failure> {
    let facts: Map<String, Value> =
        status.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    output::json(&json!({
        "repository": status.repository,
        "running": status.pid.is_some(),
        "pid": status.pid,
        "connstr": status.address.as_ref().map(|address| &address.tcp),
        "unix_connstr": status.address.as_ref().map(|address| &address.unix),
        "log": status.log,
        "server": facts,
    }))
}
