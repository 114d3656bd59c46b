//! `zenith init`.

use std::path::Path;
use std::process::ExitCode;

use control_plane::{InitOptions, REPOSITORY_VARIABLE, Repository};
use serde_json::json;

use super::Ended;
use crate::args::InitArguments;
use crate::output::{self, Format};

pub fn run(folder: Option<&Path>, arguments: &InitArguments, format: Format) -> Ended {
    let options = InitOptions { pg_bin_dir: arguments.pg_bin.clone() };
    let named = std::env::var_os(REPOSITORY_VARIABLE).filter(|named| !named.is_empty());
    let folder = folder.or(named.as_deref().map(Path::new)).unwrap_or(Path::new("."));
    let repository = Repository::init(folder, &options, &mut output::say)?;
    output::say(&format!("made the repository {}", repository.dir().display()));
    if format == Format::Json {
        output::json(&json!({
            "repository": repository.dir(),
            "default_branch": repository.config().default_branch,
            "pg_bin_dir": repository.config().pg_bin_dir,
        }))?;
    }
    Ok(ExitCode::SUCCESS)
}
