//! `Lease`: what somebody needs of a timeline's history, as the file `leases/HOLDER`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use durable_files::{Fact, FactError, read_fact, remove_fact, write_fact};
use pageserver_client::{BranchName, InstanceId};
use postgres_formats::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

/// Says that there is no compute without a lease. No holder can be called so.
const ALL_KNOWN: &str = "all.known";

/// What somebody needs of a timeline's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Who.
    pub holder: InstanceId,
    /// What it is called: a compute, or what a reader does.
    pub name: BranchName,
    /// What it reads.
    pub timeline: TimelineId,
    /// At which LSNs, or on which, in ascending order: never none.
    pub lsns: Vec<Lsn>,
    /// Whether it reads at all LSNs from the first of them on.
    pub since: bool,
    /// How long it lasts when it is not renewed; `None`: until it is given up.
    pub lasts: Option<Duration>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Lease {
    /// Whether it is a reader's, and not a compute's.
    pub fn ends_by_itself(&self) -> bool {
        self.lasts.is_some()
    }
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    name: String,
    timeline: String,
    lsns: Vec<String>,
    #[serde(default)]
    since: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lasts_seconds: Option<u64>,
    created: u64,
}

impl Fact for Text {
    const FORMAT_VERSION: u32 = 1;
    const REMEDY: &'static str =
        "put it back from a copy, or remove it if its compute is gone, and restart the page server";
}

/// That every compute has a lease.
#[derive(Serialize, Deserialize)]
struct AllKnown {
    all_known: bool,
}

impl Fact for AllKnown {
    const FORMAT_VERSION: u32 = 1;
    const REMEDY: &'static str = "remove it, and run `zenith start` again";
}

/// The folder of the leases of the repository in `dir`.
pub(crate) fn leases_dir(dir: &Path) -> PathBuf {
    dir.join("leases")
}

/// What stands in the folder.
#[derive(Default)]
pub(super) struct Found {
    pub leases: Vec<Lease>,
    /// Names of the files that cannot be read, and why.
    pub unreadable: Vec<(String, FactError)>,
    pub all_known: bool,
}

/// Reads all of them, and removes what was being written when a process ended. Nobody may be writing.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn read_all(dir: &Path) -> Result<Found, FactError> {
    let folder = leases_dir(dir);
    let io = |source| FactError::Io { path: folder.clone(), source };
    let mut found = Found::default();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(io)?,
    };
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = folder.join(name);
        if name == ALL_KNOWN {
            match read_fact::<AllKnown>(&path) {
                Ok(fact) => found.all_known = fact.is_some_and(|AllKnown { all_known }| all_known),
                Err(error) => found.unreadable.push((name.to_owned(), error)),
            }
        } else if let Ok(holder) = name.parse::<InstanceId>() {
            match Lease::read(&path, holder) {
                Ok(lease) => found.leases.extend(lease),
                Err(error) => found.unreadable.push((name.to_owned(), error)),
            }
        } else if name.ends_with(".new") {
            durable_files::unlink(&path).map_err(io)?;
        }
    }
    Ok(found)
}

/// Makes the folder, if there is none.
fn ensure_folder(dir: &Path) -> Result<(), FactError> {
    let folder = leases_dir(dir);
    if folder.exists() {
        return Ok(());
    }
    let io = |source| FactError::Io { path: folder.clone(), source };
    durable_files::create_dir_all(&folder).map_err(io)?;
    durable_files::sync_dir(dir).map_err(|source| {
        // Or the next one would take it for durable.
        let _ = durable_files::remove_dir_all(&folder);
        io(source)
    })
}

/// Remembers that every compute of the repository in `dir` has a lease, as in a new one, which has none.
///
/// # Errors
/// See `FactError`.
pub(crate) fn write_all_known(dir: &Path) -> Result<(), FactError> {
    ensure_folder(dir)?;
    write_fact(&leases_dir(dir).join(ALL_KNOWN), &AllKnown { all_known: true })
}

impl Lease {
    fn read(path: &Path, holder: InstanceId) -> Result<Option<Lease>, FactError> {
        let Some(text) = read_fact::<Text>(path)? else { return Ok(None) };
        Lease::of_text(holder, text).map(Some).map_err(|problem| FactError::Corrupt {
            path: path.to_owned(),
            problem,
            remedy: Text::REMEDY,
        })
    }

    fn of_text(holder: InstanceId, text: Text) -> Result<Lease, String> {
        let lsns = text.lsns.iter().map(|lsn| lsn.parse().map_err(|error| format!("{error}")));
        let lsns: Vec<Lsn> = lsns.collect::<Result<_, String>>()?;
        if lsns.is_empty() || !lsns.is_sorted() {
            return Err("its LSNs are none, or not in order".to_owned());
        }
        Ok(Lease {
            holder,
            name: text.name.parse().map_err(|error| format!("{error}"))?,
            timeline: text.timeline.parse().map_err(|error| format!("{error}"))?,
            lsns,
            since: text.since,
            lasts: text.lasts_seconds.map(Duration::from_secs),
            created: text.created,
        })
    }

    /// Writes the file, durably, in place of what was there.
    ///
    /// # Errors
    /// See `FactError`.
    pub(super) fn write(&self, dir: &Path) -> Result<(), FactError> {
        ensure_folder(dir)?;
        let text = Text {
            name: self.name.to_string(),
            timeline: self.timeline.to_string(),
            lsns: self.lsns.iter().map(ToString::to_string).collect(),
            since: self.since,
            lasts_seconds: self.lasts.map(|lasts| lasts.as_secs()),
            created: self.created,
        };
        write_fact(&leases_dir(dir).join(self.holder.as_str()), &text)
    }

    /// Removes the file, durably.
    ///
    /// # Errors
    /// `FactError::Io`.
    pub(super) fn remove(dir: &Path, holder: &InstanceId) -> Result<(), FactError> {
        remove_fact(&leases_dir(dir).join(holder.as_str()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
pub(super) mod tests {
    use super::*;

    pub fn lease(holder: &str, lsns: &[u64]) -> Lease {
        Lease {
            holder: holder.parse().unwrap(),
            name: "pg".parse().unwrap(),
            timeline: TimelineId::from_bytes([7; 16]),
            lsns: lsns.iter().map(|lsn| Lsn::new(*lsn)).collect(),
            since: false,
            lasts: None,
            created: 1_790_000_000,
        }
    }

    #[test]
    fn leases_come_back_as_written_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!read_all(dir.path()).unwrap().all_known);
        let of_reader = Lease {
            since: true,
            lasts: Some(Duration::from_secs(60)),
            ..lease("b-2", &[0x16B3748])
        };
        let written = [lease("a", &[0x16B3748, 0x16B3800]), of_reader];
        for lease in &written {
            lease.write(dir.path()).unwrap();
        }
        write_all_known(dir.path()).unwrap();
        let folder = leases_dir(dir.path());
        // What a crash has left is no lease.
        fs::write(folder.join("c.new"), "?").unwrap();
        let mut found = read_all(dir.path()).unwrap();
        found.leases.sort_by_key(|lease| lease.holder.to_string());
        assert_eq!(found.leases, written);
        assert!(found.all_known && !folder.join("c.new").exists());

        let good = fs::read(folder.join("a")).unwrap();
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            for bad in [&bad[..], &good[..n]] {
                fs::write(folder.join("a"), bad).unwrap();
                let found = read_all(dir.path()).unwrap();
                assert_eq!((found.leases.len(), found.unreadable.len()), (1, 1), "byte {n}");
            }
        }
    }
}
