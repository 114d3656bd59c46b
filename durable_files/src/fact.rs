//! `Fact`: something that must be remembered, in a small file of its own.
//!
//! The file is TOML. Its first two lines are the same in every version:
//!
//! ```text
//! format_version = 2
//! crc32c = 1234567890
//! lsn = "0/16B3748"
//! ```
//!
//! The checksum is of all bytes of the file but those of its own line, so that any changed bit is
//! noticed. Files of before this had no such lines; a fact says up to which version those went.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{remove_file, write_file, write_new_file};

/// What is kept in such a file. Its fields are the lines from the third on.
pub trait Fact: Serialize + DeserializeOwned {
    /// The version that is written. Goes up with every change that an earlier release would not
    /// understand.
    const FORMAT_VERSION: u32;
    /// The last version without the two lines; 0 if there never was one.
    const LAST_UNFRAMED: u32 = 0;
    /// What whoever finds the file damaged can do, to stand behind "is damaged: PROBLEM; ".
    const REMEDY: &'static str;

    /// The fact in a file of a version up to `LAST_UNFRAMED`; to be written where that is not 0.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn parse_unframed(_text: &str) -> Result<Self, String> {
        Err("there has never been such a version".to_owned())
    }
}

/// Why a fact is not known, or cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    /// The file cannot be read, written or removed.
    #[error("cannot access {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {problem}; {remedy}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
        /// What can be done.
        remedy: &'static str,
    },
    /// It was written by a newer Zenith.
    #[error("{} has format_version {found}, this program knows up to {known}", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

/// Reads the fact at `path`; `None` if there is no file.
///
/// # Errors
/// See `FactError`.
pub fn read_fact<F: Fact>(path: &Path) -> Result<Option<F>, FactError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FactError::Io { path: path.to_owned(), source }),
    };
    parse(&bytes).map(Some).map_err(|refused| match refused {
        Refused::Corrupt(problem) => {
            FactError::Corrupt { path: path.to_owned(), problem, remedy: F::REMEDY }
        }
        Refused::Newer(found) => {
            FactError::NewerFormat { path: path.to_owned(), found, known: F::FORMAT_VERSION }
        }
    })
}

/// Puts a fact at `path`, durably, in place of what was there.
///
/// # Errors
/// See `FactError`.
pub fn write_fact<F: Fact>(path: &Path, fact: &F) -> Result<(), FactError> {
    write_file(path, text_of(path, fact)?.as_bytes())
        .map_err(|source| FactError::Io { path: path.to_owned(), source })
}

/// Puts a fact into a new file at `path`, in a folder that nobody looks into yet. The file's content is
/// durable then, its name is not before the folder has been synced.
///
/// # Errors
/// See `FactError`.
pub fn write_new_fact<F: Fact>(path: &Path, fact: &F) -> Result<(), FactError> {
    write_new_file(path, text_of(path, fact)?.as_bytes())
        .map_err(|source| FactError::Io { path: path.to_owned(), source })
}

fn text_of<F: Fact>(path: &Path, fact: &F) -> Result<String, FactError> {
    let body = toml::to_string(fact).map_err(|error| FactError::Corrupt {
        path: path.to_owned(),
        problem: error.to_string(),
        remedy: F::REMEDY,
    })?;
    Ok(framed(F::FORMAT_VERSION, &body))
}

/// Removes the file at `path`, durably. None there is no error.
///
/// # Errors
/// `FactError::Io`.
pub fn remove_fact(path: &Path) -> Result<(), FactError> {
    remove_file(path).map_err(|source| FactError::Io { path: path.to_owned(), source })
}

fn framed(version: u32, body: &str) -> String {
    let version = format!("format_version = {version}\n");
    let crc = crc32c::crc32c_append(crc32c::crc32c(version.as_bytes()), body.as_bytes());
    format!("{version}crc32c = {crc}\n{body}")
}

/// Version and body of a file that is, to the byte, as it was written.
fn unframed(bytes: &[u8]) -> Option<(u32, &str)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (first, rest) = text.split_once('\n')?;
    let (_, body) = rest.split_once('\n')?;
    let version = first.strip_prefix("format_version = ")?.parse().ok()?;
    (framed(version, body) == text).then_some((version, body))
}

enum Refused {
    Corrupt(String),
    Newer(u32),
}

fn parse<F: Fact>(bytes: &[u8]) -> Result<F, Refused> {
    let of_toml = |error: toml::de::Error| Refused::Corrupt(error.message().to_owned());
    match unframed(bytes) {
        // The version first: fields of a newer format need not make sense to us.
        Some((version, _)) if version > F::FORMAT_VERSION => Err(Refused::Newer(version)),
        Some((_, body)) => toml::from_str(body).map_err(of_toml),
        None => {
            let text = String::from_utf8_lossy(bytes);
            let VersionOnly { format_version } = toml::from_str(&text).map_err(of_toml)?;
            let has_frame = text.lines().nth(1).is_some_and(|line| line.starts_with("crc32c"));
            if format_version <= F::LAST_UNFRAMED && !has_frame {
                return F::parse_unframed(&text).map_err(Refused::Corrupt);
            }
            // Without the line it may be a format that none of this is known of.
            match format_version > F::FORMAT_VERSION && !has_frame {
                true => Err(Refused::Newer(format_version)),
                false => Err(Refused::Corrupt("its checksum does not fit its content".to_owned())),
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Debug)]
    struct Sample {
        name: String,
        counts: Vec<u64>,
        inner: Inner,
    }

    #[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Debug)]
    struct Inner {
        held: bool,
    }

    impl Fact for Sample {
        const FORMAT_VERSION: u32 = 3;
        const LAST_UNFRAMED: u32 = 1;
        const REMEDY: &'static str = "ask";

        fn parse_unframed(text: &str) -> Result<Sample, String> {
            let name = text.lines().last().unwrap_or_default().to_owned();
            Ok(Sample { name, counts: Vec::new(), inner: Inner { held: false } })
        }
    }

    fn sample() -> Sample {
        let name = "a \"b\"\nüβ".to_owned();
        Sample { name, counts: vec![0, u64::MAX >> 1], inner: Inner { held: true } }
    }

    #[test]
    fn comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        assert_eq!(read_fact::<Sample>(&path).unwrap(), None);
        write_fact(&path, &sample()).unwrap();
        assert_eq!(read_fact(&path).unwrap(), Some(sample()));
        // Anybody's reader of TOML finds the frame and the fields.
        let table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(table["format_version"].as_integer(), Some(3));
        assert_eq!(table["inner"]["held"].as_bool(), Some(true));
        remove_fact(&path).unwrap();
        remove_fact(&path).unwrap();
        assert_eq!(read_fact::<Sample>(&path).unwrap(), None);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        write_fact(&path, &sample()).unwrap();
        let good = fs::read(&path).unwrap();
        let refused = |bad: &[u8], what: &str| match parse::<Sample>(bad) {
            Err(Refused::Corrupt(_)) => {}
            Err(Refused::Newer(found)) => panic!("{what}: version {found}"),
            Ok(fact) => panic!("{what}: {fact:?}"),
        };
        for n in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[n] ^= 1 << bit;
                refused(&bad, &format!("bit {bit} of byte {n}"));
            }
            refused(&good[..n], &format!("{n} bytes"));
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        let message = read_fact::<Sample>(&path).unwrap_err().to_string();
        assert!(message.contains("sample.toml is damaged: its checksum"), "{message}");
        assert!(message.ends_with("; ask"), "{message}");
    }

    #[test]
    fn other_versions_are_read_or_refused_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        for newer in [framed(4, "other = 1\n"), "format_version = 4\nother = [1]".to_owned()] {
            fs::write(&path, newer).unwrap();
            let error = read_fact::<Sample>(&path).unwrap_err();
            assert!(matches!(error, FactError::NewerFormat { found: 4, known: 3, .. }), "{error}");
        }
        fs::write(&path, "format_version = 1\n# old").unwrap();
        assert_eq!(read_fact::<Sample>(&path).unwrap().unwrap().name, "# old");
        // The first version with a checksum is not believed without it.
        fs::write(&path, "format_version = 2\nname = \"x\"").unwrap();
        let error = read_fact::<Sample>(&path).unwrap_err();
        assert!(matches!(error, FactError::Corrupt { .. }), "{error}");
    }
}
