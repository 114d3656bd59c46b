//! `BranchName`: a name that a branch can have. Computes are named by the same rule, since a compute
//! is on the branch of its own name unless told otherwise.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// The longest name of a branch, in bytes.
pub const BRANCH_NAME_BYTES_MAX: usize = 63;

/// A name that a branch can have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchName(String);

impl BranchName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for BranchName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&BranchName> for BranchName {
    fn from(name: &BranchName) -> BranchName {
        name.clone()
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As the text is shown, for messages that quote the name.
impl fmt::Debug for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The text cannot be the name of a branch or a compute.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} cannot be a name: use 1 to {BRANCH_NAME_BYTES_MAX} letters, digits, '-', '_' and '.', \
     beginning with a letter, a digit or '_'"
)]
pub struct BranchNameError(String);

impl FromStr for BranchName {
    type Err = BranchNameError;

    fn from_str(text: &str) -> Result<BranchName, BranchNameError> {
        // The name becomes a file name and a word on command lines, so nothing that a file system
        // or a shell may trip over.
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["main", "_", "0", "v1.0-rc_2", &"x".repeat(63)] {
            assert_eq!(good.parse::<BranchName>().unwrap().as_str(), good);
        }
        let bad = ["", ".", "..", ".x", "-x", "a/b", "a b", "a@b", "x.new", "ä", &"x".repeat(64)];
        for bad in bad {
            let error = bad.parse::<BranchName>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
