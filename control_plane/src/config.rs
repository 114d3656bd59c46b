//! `zenith.toml`, the settings of a repository. The page server reads the same file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, IoContext, Result};

/// Name of the file within the repository's directory; it also marks a directory as a repository.
pub const CONFIG_FILE: &str = "zenith.toml";
/// The repository layout that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// What the control plane needs to know from `zenith.toml`. Other keys are the page server's.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Config {
    /// Version of the repository's layout.
    pub format_version: u32,
    /// Folder of PostgreSQL's programs.
    pub pg_bin_dir: PathBuf,
    /// Address of the page service; chosen when the page server is first started.
    pub listen: Option<SocketAddr>,
    /// The branch that is meant where none is named.
    #[serde(default = "default_branch")]
    pub default_branch: String,
    /// How long the page server waits for an LSN that it has not received yet.
    #[serde(default = "default_lsn_timeout_seconds")]
    pub lsn_timeout_seconds: u64,
    /// How WAL is redone.
    #[serde(default)]
    pub walredo: WalRedo,
}

/// What the control plane needs to know from the table `[walredo]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct WalRedo {
    /// Libraries of extensions that write WAL of their own. Servers that recover from it here load
    /// them; what computes load is their users' affair.
    #[serde(default)]
    pub libraries: Vec<String>,
}

fn default_branch() -> String {
    "main".to_owned()
}

fn default_lsn_timeout_seconds() -> u64 {
    30
}

/// Only the version, so that a newer layout is refused before its other keys confuse us.
#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

impl Config {
    /// Text of the file for a new repository.
    pub fn initial_text(pg_bin_dir: &Path, default_branch: &str) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        format!(
            "# Settings of this Zenith repository; read when the page server starts.\n\
             format_version = {FORMAT_VERSION}\n\
             pg_bin_dir = {}\n\
             default_branch = {}\n\
             lsn_timeout_seconds = {}\n",
            quoted(&pg_bin_dir.to_string_lossy()),
            quoted(default_branch),
            default_lsn_timeout_seconds(),
        )
    }

    /// Reads the settings of the repository in `dir`.
    pub fn read(dir: &Path) -> Result<Config> {
        let path = dir.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).io("read", &path)?;
        Config::parse(&text, &path)
    }

    fn parse(text: &str, path: &Path) -> Result<Config> {
        let corrupt = |error: toml::de::Error| Error::Corrupt {
            path: path.to_owned(),
            detail: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let VersionOnly { format_version } = toml::from_str(text).map_err(corrupt)?;
        if format_version != FORMAT_VERSION {
            return Err(Error::Conflict(format!(
                "{} has repository format {format_version}, and this zenith reads format \
                 {FORMAT_VERSION}; use the zenith that made it",
                path.display()
            )));
        }
        toml::from_str(text).map_err(corrupt)
    }

    /// Writes `listen` into the file, leaving every other line as the user wrote it.
    pub(crate) fn persist_listen(&mut self, dir: &Path, listen: SocketAddr) -> Result<()> {
        let path = dir.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).io("read", &path)?;
        durable_files::write_file(&path, with_listen(&text, listen).as_bytes())
            .io("write", &path)?;
        self.listen = Some(listen);
        Ok(())
    }
}

/// `text` with its top-level key `listen` replaced, or added behind the format version.
fn with_listen(text: &str, listen: SocketAddr) -> String {
    let line = format!("listen = \"{listen}\"");
    let key_of = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let top_level = lines.iter().take_while(|line| !line.trim_start().starts_with('[')).count();
    let position = |key: &str| lines.iter().take(top_level).position(|line| key_of(line) == key);
    match (position("listen"), position("format_version")) {
        (Some(at), _) => lines[at] = line,
        (None, Some(at)) => lines.insert(at + 1, line),
        (None, None) => lines.insert(0, line),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("zenith.toml"))
    }

    #[test]
    fn initial_text_parses() {
        let config = parse(&Config::initial_text(Path::new("/a \"b\"/bin"), "main")).unwrap();
        assert_eq!(config.pg_bin_dir, Path::new("/a \"b\"/bin"));
        assert_eq!(config.default_branch, "main");
        assert_eq!(config.listen, None);
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        let newer = parse("format_version = 2\nunheard_of = 1\n").unwrap_err();
        assert!(matches!(&newer, Error::Conflict(_)), "{newer}");
        assert!(newer.to_string().contains("repository format 2"), "{newer}");
        for text in ["", "format_version = \"x\"", "format_version = 1", "format_version ="] {
            let error = parse(text).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn listen_is_written_without_touching_the_rest() {
        let listen: SocketAddr = "127.0.0.1:1234".parse().unwrap();
        let text = "# mine\nformat_version = 1\npg_bin_dir = \"/x\"\n[cache]\nlisten = 5\n";
        let once = with_listen(text, listen);
        assert_eq!(parse(&once).unwrap().listen, Some(listen));
        assert!(once.starts_with("# mine\n") && once.ends_with("[cache]\nlisten = 5\n"), "{once}");
        let other = "127.0.0.1:99".parse().unwrap();
        let twice = with_listen(&once, other);
        assert_eq!(parse(&twice).unwrap().listen, Some(other));
        assert_eq!(twice.lines().count(), once.lines().count());
    }
}
