//! `WriterFact`: what is remembered of a timeline's writer, in the file `writer.toml` in the
//! timeline's folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pageserver_client::{BranchName, Generation, InstanceId, WriterId};
use postgres_formats::{Lsn, TimelineId, Timestamp};
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "writer.toml";
const FORMAT_VERSION: u32 = 1;

/// The compute that writes a timeline, or the last one that did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriterFact {
    /// How often the role has been given away on this timeline, this time included.
    pub generation: Generation,
    /// Which compute.
    pub instance: InstanceId,
    /// What it is called.
    pub name: BranchName,
    /// When it got the role, in seconds since 1970.
    pub since: u64,
    /// Where history ended then: its own WAL begins here.
    pub lsn: Lsn,
    /// Whether it still has the role, or has given it back.
    pub held: bool,
}

/// Why it is not known who writes a timeline.
#[derive(Debug, thiserror::Error)]
pub enum WriterFileError {
    /// The file cannot be read or written.
    #[error("cannot access {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It says nothing that makes sense.
    #[error(
        "{} is damaged: {problem}; put back what it was, or remove it if you know which compute is the \
         last one, and restart the page server", .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// It was written by a newer Zenith.
    #[error(
        "{} has format_version {found}, this program knows up to {FORMAT_VERSION}",
        .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    format_version: u32,
    generation: u64,
    instance: String,
    name: String,
    since: u64,
    lsn: String,
    held: bool,
    /// Of the text of all other fields.
    crc32c: u32,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

impl Text {
    fn checksum(&self) -> u32 {
        let Text { format_version, generation, instance, name, since, lsn, held, crc32c: _ } = self;
        let fields = (format_version, generation, instance, name, since, lsn, held);
        crc32c::crc32c(format!("{fields:?}").as_bytes())
    }
}

impl WriterFact {
    /// Reads the file in a timeline's folder; `None` if the timeline has never had a writer.
    ///
    /// # Errors
    /// See `WriterFileError`.
    pub fn read(timeline_dir: &Path) -> Result<Option<WriterFact>, WriterFileError> {
        let path = timeline_dir.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(WriterFileError::Io { path, source }),
        };
        let text = String::from_utf8_lossy(&text);
        // The version first: fields of a newer format need not make sense to us.
        if let Ok(VersionOnly { format_version: found }) = toml::from_str(&text)
            && found > FORMAT_VERSION
        {
            return Err(WriterFileError::NewerFormat { path, found });
        }
        WriterFact::parse(&text)
            .map(Some)
            .map_err(|problem| WriterFileError::Corrupt { path, problem })
    }

    fn parse(text: &str) -> Result<WriterFact, String> {
        let text: Text = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if text.checksum() != text.crc32c {
            return Err("its checksum does not fit its content".to_owned());
        }
        Ok(WriterFact {
            generation: Generation(text.generation),
            instance: text.instance.parse().map_err(|error| format!("{error}"))?,
            name: text.name.parse().map_err(|error| format!("{error}"))?,
            since: text.since,
            lsn: text.lsn.parse().map_err(|error| format!("{error}"))?,
            held: text.held,
        })
    }

    /// Writes the file in a timeline's folder, durably.
    ///
    /// # Errors
    /// See `WriterFileError`.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), WriterFileError> {
        let path = timeline_dir.join(FILE_NAME);
        let mut text = Text {
            format_version: FORMAT_VERSION,
            generation: self.generation.0,
            instance: self.instance.to_string(),
            name: self.name.to_string(),
            since: self.since,
            lsn: self.lsn.to_string(),
            held: self.held,
            crc32c: 0,
        };
        text.crc32c = text.checksum();
        let text = toml::to_string(&text).map_err(|error| WriterFileError::Corrupt {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        durable_files::write_file(&path, text.as_bytes())
            .map_err(|source| WriterFileError::Io { path, source })
    }

    /// How the compute names itself as the writer of `timeline`.
    pub fn id(&self, timeline: TimelineId) -> WriterId {
        WriterId { timeline, instance: self.instance.clone(), generation: self.generation }
    }

    /// When it got the role.
    pub fn since(&self) -> Timestamp {
        let micros = i64::try_from(self.since).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Timestamp::from_unix_micros(micros)
    }

    /// What an earlier writer is told.
    pub fn fenced(&self) -> String {
        let WriterFact { name, generation, lsn, .. } = self;
        format!(
            "this compute does not write its branch any more: compute \"{name}\" (generation \
             {generation}) has taken over at {lsn} on {}; what this one has changed since is only in \
             its own directory: save what you need of it, then remove it with `zenith pg destroy`",
            self.since()
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
pub(super) mod tests {
    use super::*;

    pub(in crate::writer) fn fact(generation: u64, instance: &str) -> WriterFact {
        WriterFact {
            generation: Generation(generation),
            instance: instance.parse().unwrap(),
            name: "main".parse().unwrap(),
            since: 1_790_000_000,
            lsn: Lsn::new(0x16B3748),
            held: true,
        }
    }

    #[test]
    fn comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(WriterFact::read(dir.path()).unwrap(), None);
        for held in [true, false] {
            let written = WriterFact { held, ..fact(u64::MAX >> 1, "a-1") };
            written.write(dir.path()).unwrap();
            assert_eq!(WriterFact::read(dir.path()).unwrap(), Some(written));
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fact(3, "0123456789abcdef").write(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = fs::read(&path).unwrap();
        for n in 0..good.len() {
            for damage in [1, 0x10] {
                let mut bad = good.clone();
                bad[n] ^= damage;
                fs::write(&path, &bad).unwrap();
                // What changes nothing but blanks between fields is no damage.
                if let Ok(read) = WriterFact::read(dir.path()) {
                    assert_eq!(read, Some(fact(3, "0123456789abcdef")), "byte {n}");
                }
            }
            fs::write(&path, &good[..n]).unwrap();
            let whole = n + 1 == good.len();
            assert_eq!(WriterFact::read(dir.path()).is_ok(), whole, "{n} bytes");
        }
        fs::write(&path, "format_version = 2\nwriters = []").unwrap();
        let error = WriterFact::read(dir.path()).unwrap_err();
        assert!(matches!(error, WriterFileError::NewerFormat { found: 2, .. }), "{error}");
    }

    #[test]
    fn an_earlier_writer_is_told_what_happened_and_what_to_do() {
        let text = fact(2, "b").fenced();
        for part in ["\"main\"", "generation 2", "0/16B3748", "2026-09-21", "pg destroy"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
