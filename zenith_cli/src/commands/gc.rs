//! `zenith gc`.

use std::process::ExitCode;

use control_plane::{Collected, CollectedLayer, Held, Repository};

use super::Ended;
use crate::args::GcArguments;
use crate::failure::Failure;
use crate::output::{self, Format};

pub fn run(repository: &Repository, arguments: &GcArguments, format: Format) -> Ended {
    match &arguments.branch {
        Some(name) => {
            let done = repository.gc(name, arguments.dry_run)?;
            match format {
                Format::Json => output::json(&done)?,
                Format::Table => table(std::slice::from_ref(&done))?,
            }
            say(&done);
        }
        None => {
            let all = repository.gc_all(arguments.dry_run)?;
            match format {
                Format::Json => output::json(&all)?,
                Format::Table => table(&all)?,
            }
            all.iter().for_each(say);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The layers that go, and those who need others.
fn table(all: &[Collected]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for Collected { branch, layers, held, dry_run, .. } in all {
        let what = if *dry_run { "would go" } else { "removed" };
        rows.extend(layers.iter().map(|CollectedLayer { name, bytes }| {
            vec![branch.clone(), format!("{name} {what}"), bytes.to_string()]
        }));
        rows.extend(held.iter().filter(|held| held.bytes > 0).map(|held| {
            vec![
                branch.clone(),
                format!("{} held by {}", place(held), held.by),
                held.bytes.to_string(),
            ]
        }));
    }
    match rows.is_empty() {
        true => Ok(()),
        false => output::table(&["BRANCH", "HISTORY", "BYTES"], rows),
    }
}

fn place(held: &Held) -> String {
    match held.to {
        Some(to) if to == held.from => format!("{to}"),
        Some(to) => format!("{} to {to}", held.from),
        None => format!("{} and later", held.from),
    }
}

fn say(done: &Collected) {
    let Collected { branch, horizon, layers, bytes, dry_run, is_kept, .. } = done;
    let what = if *dry_run { "would be removed" } else { "were removed" };
    let label =
        if *is_kept { format!("the former branch {branch}") } else { format!("branch {branch}") };
    let kept = match horizon {
        Some(horizon) => format!("its history is kept from {horizon} on"),
        None => "only what others need of its history is kept".to_owned(),
    };
    output::say(&format!("{} layers of {label} with {bytes} bytes {what}; {kept}", layers.len()));
}
