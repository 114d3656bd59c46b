//! `zenith checkpoint`.

use std::process::ExitCode;

use control_plane::{Checkpoint, Repository};

use super::Ended;
use crate::args::CheckpointArguments;
use crate::output::{self, Format};

pub fn run(repository: &Repository, arguments: &CheckpointArguments, format: Format) -> Ended {
    let done = repository.checkpoint(arguments.branch.as_deref())?;
    let Checkpoint { branch, lsn, layers, .. } = &done;
    match format {
        Format::Json => output::json(&done)?,
        Format::Table if layers.is_empty() => {}
        Format::Table => {
            let row = |layer: &control_plane::Layer| {
                vec![layer.name.clone(), layer.bytes.to_string(), layer.wal_bytes.to_string()]
            };
            let rows = layers.iter().map(row).collect();
            output::table(&["LAYER", "BYTES", "BYTES OF WAL"], rows)?;
        }
    }
    let already = if layers.is_empty() { " already" } else { "" };
    output::say(&format!("the history of branch {branch} is{already} in layers up to {lsn}"));
    Ok(ExitCode::SUCCESS)
}
