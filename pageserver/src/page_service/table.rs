//! The reply of a control command: a few rows of text, built before anything is sent so that a
//! command either answers or fails, never half of each.

/// Rows with named columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &'static [&'static str]) -> Table {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row. Panics if it has not one value per column, which is an error of the program.
    pub fn push<const N: usize>(&mut self, row: [Option<String>; N]) {
        assert_eq!(N, self.columns.len(), "one value per column");
        self.rows.push(row.into());
    }

    /// The names of the columns.
    pub fn columns(&self) -> &'static [&'static str] {
        self.columns
    }

    /// The rows, each with one value per column.
    pub fn rows(&self) -> &[Vec<Option<String>>] {
        &self.rows
    }
}

/// A value of a row, from anything that can be shown.
pub fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}
