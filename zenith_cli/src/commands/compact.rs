//! `zenith compact`.

use std::process::ExitCode;

use control_plane::{CollectedLayer, Compacted, Repository, Work};

use super::Ended;
use crate::args::CompactArguments;
use crate::output::{self, Format};

/// Says how far the page server is, once for each step that is to be seen.
pub fn progress() -> impl FnMut(&Work) {
    let mut last = None;
    move |work| {
        let percent = work.done.min(work.total).saturating_mul(100) / work.total.max(1);
        let line = format!("{} at {}: {percent} %", work.kind, work.lsn);
        if last.as_ref() != Some(&line) {
            output::say(&line);
        }
        last = Some(line);
    }
}

pub fn run(repository: &Repository, arguments: &CompactArguments, format: Format) -> Ended {
    let done = repository.compact(arguments.branch.as_deref(), &mut progress())?;
    let Compacted { branch, lsn, made, replaced, layers, bytes, .. } = &done;
    match format {
        Format::Json => output::json(&done)?,
        Format::Table if made.is_empty() => {}
        Format::Table => {
            let row = |state: &str, layer: &CollectedLayer| {
                vec![layer.name.clone(), layer.bytes.to_string(), state.to_owned()]
            };
            let made = made.iter().map(|layer| row("made", layer));
            let rows = made.chain(replaced.iter().map(|layer| row("replaced", layer))).collect();
            output::table(&["LAYER", "BYTES", "STATE"], rows)?;
        }
    }
    let already = if made.is_empty() { " already" } else { "" };
    output::say(&format!(
        "the history of branch {branch} up to {lsn} is{already} in {layers} layers with {bytes} bytes"
    ));
    Ok(ExitCode::SUCCESS)
}
