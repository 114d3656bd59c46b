//! The reply of a control command: a few rows of text, built before anything is sent so that a
//! command either answers or fails, never half of each.

/// Rows, each with one value per column of the command's specification.
pub type Rows = Vec<Vec<Option<String>>>;

/// A value of a row, from anything that can be shown.
pub fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}
