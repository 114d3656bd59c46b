//! Finds the distribution's PostgreSQL programs and checks their version.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, IoContext, Result};

/// Names the folder of PostgreSQL's programs, over every guess of ours.
pub const PG_BIN_VARIABLE: &str = "ZENITH_PG_BIN";
/// The major version whose formats Zenith reads and writes.
pub const PG_MAJOR: u32 = 15;

const DEBIAN_BIN: &str = "/usr/lib/postgresql/15/bin";
const ADVICE: &str = "install the Debian package postgresql-15, or name the folder of its \
                      programs with --pg-bin or ZENITH_PG_BIN";

/// The programs of one PostgreSQL installation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresInstall {
    bin_dir: PathBuf,
    version: String,
}

impl PostgresInstall {
    /// Looks in `bin_dir` if given, else where `ZENITH_PG_BIN` says, else in Debian's folder, where
    /// `pg_config` points, and on the `PATH`.
    pub fn find(bin_dir: Option<&Path>) -> Result<PostgresInstall> {
        let named = bin_dir.map(Path::to_owned).or_else(|| {
            std::env::var_os(PG_BIN_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
        });
        if let Some(dir) = named {
            return PostgresInstall::at(&dir);
        }
        let mut refused = None;
        for dir in guesses() {
            if !dir.join("postgres").exists() {
                continue;
            }
            match PostgresInstall::at(&dir) {
                Ok(install) => return Ok(install),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| {
            Error::Environment(format!("PostgreSQL {PG_MAJOR} is not installed here; {ADVICE}"))
        }))
    }

    /// The installation whose programs are in `bin_dir`.
    pub fn at(bin_dir: &Path) -> Result<PostgresInstall> {
        for program in ["postgres", "initdb"] {
            if !bin_dir.join(program).exists() {
                return Err(Error::Environment(format!(
                    "there is no {program} program in {}; {ADVICE}",
                    bin_dir.display()
                )));
            }
        }
        let bin_dir = std::path::absolute(bin_dir).io("find", bin_dir)?;
        let postgres = bin_dir.join("postgres");
        let output = Command::new(&postgres).arg("--version").output().io("run", &postgres)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text).ok_or_else(|| {
            Error::Environment(format!(
                "{} does not tell its version: it printed {:?}; {ADVICE}",
                postgres.display(),
                text.trim()
            ))
        })?;
        if version.0 != PG_MAJOR {
            return Err(Error::Environment(format!(
                "{} is PostgreSQL {}, and Zenith needs PostgreSQL {PG_MAJOR}; {ADVICE}",
                postgres.display(),
                version.1
            )));
        }
        Ok(PostgresInstall { bin_dir, version: version.1 })
    }

    /// The folder of the programs, absolute.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The version as PostgreSQL writes it, such as `15.9`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

fn guesses() -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(DEBIAN_BIN)];
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path));
    }
    dirs
}

/// Major version and whole version from `postgres (PostgreSQL) 15.9 (Debian 15.9-0+deb12u1)`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn versions() {
        let parse = |text| parse_version(text).map(|(major, _)| major);
        assert_eq!(parse("postgres (PostgreSQL) 15.9 (Debian 15.9-0+deb12u1)\n"), Some(15));
        assert_eq!(parse("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse("postgres (Other) 15.9"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn missing_programs_and_other_versions_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        let message = PostgresInstall::at(dir.path()).unwrap_err().to_string();
        assert!(message.contains("there is no postgres program"), "{message}");
        for program in ["postgres", "initdb"] {
            let path = dir.path().join(program);
            fs::write(&path, "#!/bin/sh\necho 'postgres (PostgreSQL) 16.1'\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let message = PostgresInstall::at(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("is PostgreSQL 16.1, and Zenith needs PostgreSQL 15"),
            "{message}"
        );
        assert!(message.contains("postgresql-15"), "{message}");
    }
}
