//! What a preloaded process must know, handed to it in its environment.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use pageserver_client::Generation;
use postgres_formats::TimelineId;

/// Connection string of the page server.
pub const PAGESERVER: &str = "ZENITH_LAZY_PAGESERVER";
/// Timeline of the compute.
pub const TIMELINE: &str = "ZENITH_LAZY_TIMELINE";
/// The generation of the compute, if it writes its timeline.
pub const GENERATION: &str = "ZENITH_LAZY_GENERATION";
/// Absolute path of the file that holds the LSN at which blocks are fetched (see `base`).
pub const BASE: &str = "ZENITH_LAZY_BASE";
/// Absolute path of the data directory.
pub const PGDATA: &str = "ZENITH_LAZY_PGDATA";
/// Absolute path of the folder of presence maps.
pub const PRESENCE: &str = "ZENITH_LAZY_PRESENCE";
/// Absolute path of the file that what starts read is noted in (see `start_profile`), if it is to be.
pub const PROFILE: &str = "ZENITH_LAZY_PROFILE";
/// How long to try before a read fails, in seconds.
pub const TIMEOUT_SECONDS: &str = "ZENITH_LAZY_TIMEOUT_SECONDS";

/// Every variable of ours.
pub const ALL: [&str; 8] =
    [PAGESERVER, TIMELINE, GENERATION, BASE, PGDATA, PRESENCE, PROFILE, TIMEOUT_SECONDS];

/// Below PostgreSQL's `authentication_timeout` of 60 s: a client that connects while the page server is
/// away is told that a block cannot be read, and not that it took too long to say who it is.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45);

/// The settings of one compute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Connection string of the page server.
    pub pageserver: String,
    /// Timeline of the compute.
    pub timeline: TimelineId,
    /// As which writer of its timeline it asks; `None` if it writes none.
    pub generation: Option<Generation>,
    /// The file that holds the compute's base LSN, absolute.
    pub base: PathBuf,
    /// The data directory, absolute.
    pub pgdata: PathBuf,
    /// The folder of presence maps, absolute.
    pub presence: PathBuf,
    /// The file that what starts read is noted in, absolute.
    pub profile: Option<PathBuf>,
    /// How long a read goes on trying while the page server cannot be reached.
    pub timeout: Duration,
}

/// The environment does not hold the settings.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingsError {
    /// A variable is not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable means nothing.
    #[error("{name} is \"{value}\": {reason}")]
    Bad {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Settings {
    /// Reads the settings from the environment's `variables`.
    pub fn from_variables(variables: &HashMap<String, String>) -> Result<Settings, SettingsError> {
        let get = |name| variables.get(name).ok_or(SettingsError::Missing(name));
        let absolute = |name| {
            let value = get(name)?;
            let path = PathBuf::from(value);
            let ok = path.is_absolute().then_some(path);
            ok.ok_or_else(|| bad(name, value, "not an absolute path"))
        };
        let timeout = match variables.get(TIMEOUT_SECONDS) {
            None => DEFAULT_TIMEOUT,
            Some(value) => match value.parse() {
                Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
                _ => return Err(bad(TIMEOUT_SECONDS, value, "not a number from 1 to 86400")),
            },
        };
        Ok(Settings {
            pageserver: get(PAGESERVER)?.clone(),
            timeline: get(TIMELINE)
                .and_then(|text| text.parse().map_err(|error| bad(TIMELINE, text, error)))?,
            generation: variables
                .get(GENERATION)
                .map(|text| text.parse().map_err(|error| bad(GENERATION, text, error)))
                .transpose()?,
            base: absolute(BASE)?,
            pgdata: absolute(PGDATA)?,
            presence: absolute(PRESENCE)?,
            profile: match variables.contains_key(PROFILE) {
                true => Some(absolute(PROFILE)?),
                false => None,
            },
            timeout,
        })
    }
}

fn bad(name: &'static str, value: &str, reason: impl ToString) -> SettingsError {
    SettingsError::Bad { name, value: value.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn variables() -> HashMap<String, String> {
        [
            (PAGESERVER, "host=/run/x port=1"),
            (TIMELINE, "00112233445566778899aabbccddeeff"),
            (BASE, "/base"),
            (PGDATA, "/pgdata"),
            (PRESENCE, "/presence"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn a_complete_environment_is_accepted() {
        let mut variables = variables();
        let settings = Settings::from_variables(&variables).unwrap();
        assert_eq!(settings.base, Path::new("/base"));
        assert_eq!(settings.timeout, DEFAULT_TIMEOUT);
        assert_eq!((settings.generation, settings.profile), (None, None));
        variables.insert(PROFILE.to_owned(), "/profile".to_owned());
        let profile = Settings::from_variables(&variables).unwrap().profile;
        assert_eq!(profile.unwrap(), Path::new("/profile"));
        variables.insert(GENERATION.to_owned(), "7".to_owned());
        let generation = Settings::from_variables(&variables).unwrap().generation;
        assert_eq!(generation, Some(Generation(7)));
        variables.insert(TIMEOUT_SECONDS.to_owned(), "3".to_owned());
        assert_eq!(Settings::from_variables(&variables).unwrap().timeout, Duration::from_secs(3));
    }

    #[test]
    fn anything_missing_or_meaningless_is_named() {
        for name in [PAGESERVER, TIMELINE, BASE, PGDATA, PRESENCE] {
            let mut variables = variables();
            variables.remove(name);
            assert_eq!(Settings::from_variables(&variables), Err(SettingsError::Missing(name)));
        }
        for (name, value) in [
            (TIMELINE, "x"),
            (BASE, "base"),
            (PGDATA, "pgdata"),
            (GENERATION, ""),
            (PRESENCE, ""),
            (PROFILE, "profile"),
            (TIMEOUT_SECONDS, "0"),
            (TIMEOUT_SECONDS, "soon"),
        ] {
            let mut variables = variables();
            variables.insert(name.to_owned(), value.to_owned());
            let error = Settings::from_variables(&variables).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
