//! `WriterFact`: what is remembered of a timeline's writer, in the file `writer.toml` in the
//! timeline's folder.

use std::path::Path;

use durable_files::{Fact, FactError, read_fact, write_fact};
use pageserver_client::{BranchName, Generation, InstanceId, WriterId};
use postgres_formats::{Lsn, TimelineId, Timestamp};
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "writer.toml";

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

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    generation: u64,
    instance: String,
    name: String,
    since: u64,
    lsn: String,
    held: bool,
}

/// The first format, with a checksum of the fields instead of the text.
#[derive(Deserialize)]
struct FirstText {
    format_version: u32,
    #[serde(flatten)]
    fields: Text,
    /// Of the text of all other fields.
    crc32c: u32,
}

impl FirstText {
    fn checksum(&self) -> u32 {
        let Text { generation, instance, name, since, lsn, held } = &self.fields;
        let fields = (self.format_version, generation, instance, name, since, lsn, held);
        crc32c::crc32c(format!("{fields:?}").as_bytes())
    }
}

impl Fact for Text {
    const FORMAT_VERSION: u32 = 2;
    const LAST_UNFRAMED: u32 = 1;
    const REMEDY: &'static str = "put back what it was, or remove it if you know which compute is the \
         last one, and restart the page server";

    fn parse_unframed(text: &str) -> Result<Text, String> {
        let text: FirstText = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        match text.checksum() == text.crc32c {
            true => Ok(text.fields),
            false => Err("its checksum does not fit its content".to_owned()),
        }
    }
}

impl WriterFact {
    /// Reads the file in a timeline's folder; `None` if the timeline has never had a writer.
    ///
    /// # Errors
    /// See `FactError`.
    pub fn read(timeline_dir: &Path) -> Result<Option<WriterFact>, FactError> {
        let path = timeline_dir.join(FILE_NAME);
        let Some(text) = read_fact::<Text>(&path)? else { return Ok(None) };
        WriterFact::of_text(text).map(Some).map_err(|problem| FactError::Corrupt {
            path,
            problem,
            remedy: Text::REMEDY,
        })
    }

    fn of_text(text: Text) -> Result<WriterFact, String> {
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
    /// See `FactError`.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), FactError> {
        let text = Text {
            generation: self.generation.0,
            instance: self.instance.to_string(),
            name: self.name.to_string(),
            since: self.since,
            lsn: self.lsn.to_string(),
            held: self.held,
        };
        write_fact(&timeline_dir.join(FILE_NAME), &text)
    }

    /// Removes what was being written when the process ended. Before anything is written.
    ///
    /// # Errors
    /// `FactError::Io`.
    pub fn remove_unfinished(timeline_dir: &Path) -> Result<(), FactError> {
        let path = timeline_dir.join(FILE_NAME);
        durable_files::remove_unfinished(&path).map_err(|source| FactError::Io { path, source })
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
    use std::fs;

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

    /// As the release before facts wrote it.
    const FIRST: &str = r#"format_version = 1
generation = 3
instance = "0123456789abcdef"
name = "main"
since = 1790000000
lsn = "0/16B3748"
held = true
crc32c = 2237493631
"#;

    #[test]
    fn the_first_format_is_read_and_its_damage_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = FIRST.as_bytes();
        fs::write(&path, good).unwrap();
        let written = Some(fact(3, "0123456789abcdef"));
        assert_eq!(WriterFact::read(dir.path()).unwrap(), written);
        for n in 0..good.len() {
            for damage in [1, 0x10] {
                let mut bad = good.to_vec();
                bad[n] ^= damage;
                fs::write(&path, &bad).unwrap();
                // What changes nothing but blanks between fields is no damage.
                if let Ok(read) = WriterFact::read(dir.path()) {
                    assert_eq!(read, written, "byte {n}");
                }
            }
            fs::write(&path, &good[..n]).unwrap();
            let whole = n + 1 == good.len();
            assert_eq!(WriterFact::read(dir.path()).is_ok(), whole, "{n} bytes");
        }
        fs::write(&path, "format_version = 3\nwriters = []").unwrap();
        let error = WriterFact::read(dir.path()).unwrap_err();
        assert!(matches!(error, FactError::NewerFormat { found: 3, .. }), "{error}");
    }

    #[test]
    fn an_earlier_writer_is_told_what_happened_and_what_to_do() {
        let text = fact(2, "b").fenced();
        for part in ["\"main\"", "generation 2", "0/16B3748", "2026-09-21", "pg destroy"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
