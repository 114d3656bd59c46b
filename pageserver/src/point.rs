//! `Point`: a place in the history of a branch, as users write it: `main`, `main@0/16B3748`.

use std::fmt;
use std::str::FromStr;

use postgres_formats::Lsn;

/// The longest name of a branch, in bytes.
pub const BRANCH_NAME_BYTES_MAX: usize = 63;

/// A name that a branch can have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BranchName(String);

impl BranchName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot be the name of a branch.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{0}\" cannot be the name of a branch: use 1 to {BRANCH_NAME_BYTES_MAX} letters, digits, \
     '.', '_' and '-', beginning with a letter, a digit or '_'"
)]
pub struct BranchNameError(String);

impl FromStr for BranchName {
    type Err = BranchNameError;

    fn from_str(text: &str) -> Result<BranchName, BranchNameError> {
        // The name becomes a file name, so nothing that a file system or a shell may trip over.
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let other = |c: char| first(c) || c == '.' || c == '-';
        let ok = text.len() <= BRANCH_NAME_BYTES_MAX
            && text.starts_with(first)
            && text.chars().all(other)
            // Taken by files in the making.
            && !text.ends_with(".new");
        if ok { Ok(BranchName(text.to_owned())) } else { Err(BranchNameError(text.to_owned())) }
    }
}

/// A place in the history of a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// The branch.
    pub branch: BranchName,
    /// Where on it; `None`: its end.
    pub lsn: Option<Lsn>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lsn {
            Some(lsn) => write!(f, "{}@{lsn}", self.branch),
            None => self.branch.fmt(f),
        }
    }
}

/// The text is not a point.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PointError {
    /// Its branch cannot be one.
    #[error(transparent)]
    Branch(#[from] BranchNameError),
    /// What follows the `@` is no LSN.
    #[error("in \"{point}\": {source}")]
    Lsn {
        /// The text.
        point: String,
        /// Why not.
        source: postgres_formats::lsn::ParseLsnError,
    },
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Point, PointError> {
        let Some((branch, at)) = text.split_once('@') else {
            return Ok(Point { branch: text.parse()?, lsn: None });
        };
        let lsn =
            at.parse().map_err(|source| PointError::Lsn { point: text.to_owned(), source })?;
        Ok(Point { branch: branch.parse()?, lsn: Some(lsn) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn points_round_trip() {
        for text in ["main", "main@0/16B3748", "v1.0-rc_2@FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
        for bad in ["", "@0/1", "a/b", "..", ".x", "-x", "main@", "main@0", "a b", "x.new", "ä"] {
            assert!(bad.parse::<Point>().is_err(), "{bad:?} was accepted");
        }
        assert!("x".repeat(64).parse::<BranchName>().is_err());
    }
}
