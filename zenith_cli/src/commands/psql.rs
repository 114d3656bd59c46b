//! `zenith psql`: a throw-away compute for one session.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;

use anyhow::{Context, anyhow};
use control_plane::{Compute, Repository};

use super::Ended;
use crate::args::PsqlArguments;
use crate::failure::{self, Failure};
use crate::signals::catch_signals;

pub fn run(repository: &Repository, arguments: &PsqlArguments) -> Ended {
    // From here on the compute has to be removed whatever happens. Ctrl-C is meant for psql, to
    // which the terminal sends it as well.
    let interrupted = catch_signals()?;
    let compute = Compute::create_throw_away(repository, &arguments.point)?;
    let ended = compute.start().map_err(Failure::from).and_then(|_| {
        if interrupted.load(Ordering::Relaxed) {
            return Err(anyhow!("interrupted").into());
        }
        session(&compute, arguments)
    });
    let destroyed = compute.destroy();
    let code = ended?;
    destroyed?;
    Ok(code)
}

fn session(compute: &Compute, arguments: &PsqlArguments) -> Ended {
    let beside_postgres = compute.repository().config().pg_bin_dir.join("psql");
    let program = if beside_postgres.exists() { beside_postgres } else { "psql".into() };
    let mut command = Command::new(&program);
    // By environment rather than by argument, so that `-d` and the rest keep their meaning.
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", compute.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .args(&arguments.arguments);
    let mut child = command.spawn().with_context(|| format!("run {}", program.display()))?;
    let status = child.wait().context("wait for psql")?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(failure::FAILED),
        // As shells have it.
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(failure::FAILED),
        (None, None) => failure::FAILED,
    };
    Ok(ExitCode::from(code))
}
