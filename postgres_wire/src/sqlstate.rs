//! `SqlState`, the five-character code of an error.

use std::fmt;

/// An error code of PostgreSQL's Appendix A (`utils/errcodes.txt`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `00000`, not an error.
    pub const SUCCESSFUL_COMPLETION: SqlState = SqlState(*b"00000");
    /// `08P01`
    pub const PROTOCOL_VIOLATION: SqlState = SqlState(*b"08P01");
    /// `0A000`
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState(*b"0A000");
    /// `22023`
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState(*b"22023");
    /// `22021`
    pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = SqlState(*b"22021");
    /// `22P02`
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState(*b"22P02");
    /// `22P03`
    pub const INVALID_BINARY_REPRESENTATION: SqlState = SqlState(*b"22P03");
    /// `25006`
    pub const READ_ONLY_SQL_TRANSACTION: SqlState = SqlState(*b"25006");
    /// `26000`
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState(*b"26000");
    /// `28000`
    pub const INVALID_AUTHORIZATION_SPECIFICATION: SqlState = SqlState(*b"28000");
    /// `28P01`
    pub const INVALID_PASSWORD: SqlState = SqlState(*b"28P01");
    /// `34000`, also for an unknown portal.
    pub const INVALID_CURSOR_NAME: SqlState = SqlState(*b"34000");
    /// `42601`
    pub const SYNTAX_ERROR: SqlState = SqlState(*b"42601");
    /// `42704`
    pub const UNDEFINED_OBJECT: SqlState = SqlState(*b"42704");
    /// `42710`
    pub const DUPLICATE_OBJECT: SqlState = SqlState(*b"42710");
    /// `42P05`
    pub const DUPLICATE_PREPARED_STATEMENT: SqlState = SqlState(*b"42P05");
    /// `42P02`
    pub const UNDEFINED_PARAMETER: SqlState = SqlState(*b"42P02");
    /// `53100`
    pub const DISK_FULL: SqlState = SqlState(*b"53100");
    /// `53300`
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState(*b"53300");
    /// `53400`
    pub const CONFIGURATION_LIMIT_EXCEEDED: SqlState = SqlState(*b"53400");
    /// `54000`
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState(*b"54000");
    /// `55000`
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState(*b"55000");
    /// `55006`
    pub const OBJECT_IN_USE: SqlState = SqlState(*b"55006");
    /// `57014`
    pub const QUERY_CANCELED: SqlState = SqlState(*b"57014");
    /// `57P01`
    pub const ADMIN_SHUTDOWN: SqlState = SqlState(*b"57P01");
    /// `57P03`
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState(*b"57P03");
    /// `58030`
    pub const IO_ERROR: SqlState = SqlState(*b"58030");
    /// `58P01`
    pub const UNDEFINED_FILE: SqlState = SqlState(*b"58P01");
    /// `XX000`
    pub const INTERNAL_ERROR: SqlState = SqlState(*b"XX000");
    /// `XX001`
    pub const DATA_CORRUPTED: SqlState = SqlState(*b"XX001");

    /// The code with these five characters, digits and capital letters; `None` for anything else.
    pub const fn from_code(code: &str) -> Option<SqlState> {
        let Some(&bytes) = code.as_bytes().first_chunk::<5>() else { return None };
        if code.len() != 5 {
            return None;
        }
        let mut at = 0;
        while at < bytes.len() {
            if !(bytes[at].is_ascii_digit() || bytes[at].is_ascii_uppercase()) {
                return None;
            }
            at += 1;
        }
        Some(SqlState(bytes))
    }

    /// The five characters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_are_codes() {
        assert_eq!(SqlState::from_code("57P01"), Some(SqlState::ADMIN_SHUTDOWN));
        for bad in ["", "57P0", "57P011", "57p01", "57P0 ", "é123"] {
            assert_eq!(SqlState::from_code(bad), None, "{bad:?}");
        }
    }
}
