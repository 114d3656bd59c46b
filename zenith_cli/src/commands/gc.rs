//! `zenith gc`.

use std::process::ExitCode;

use control_plane::{Collected, CollectedLayer, Repository};

use super::Ended;
use crate::args::GcArguments;
use crate::output::{self, Format};

pub fn run(repository: &Repository, arguments: &GcArguments, format: Format) -> Ended {
    let done = repository.gc(arguments.branch.as_deref(), arguments.dry_run)?;
    let Collected { branch, horizon, layers, bytes, .. } = &done;
    match format {
        Format::Json => output::json(&done)?,
        Format::Table if layers.is_empty() => {}
        Format::Table => {
            let row = |layer: &CollectedLayer| vec![layer.name.clone(), layer.bytes.to_string()];
            output::table(&["LAYER", "BYTES"], layers.iter().map(row).collect())?;
        }
    }
    let what = if arguments.dry_run { "would be removed" } else { "were removed" };
    output::say(&format!(
        "{} layers of branch {branch} with {bytes} bytes {what}; its history is kept from {horizon} on",
        layers.len()
    ));
    Ok(ExitCode::SUCCESS)
}
