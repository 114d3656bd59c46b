//! Text of commands: cutting it into statements and words, putting parameters in.
//!
//! The only SQL known here is quoting: `'..'` and `".."`, each with its quote doubled inside.

use crate::limits;
use crate::server::error::QueryError;
use crate::sqlstate::SqlState;

/// Walks over `sql` and gives each character with whether it is outside of quotes. The quotes
/// themselves count as inside.
fn scan(sql: &str) -> impl Iterator<Item = (usize, char, bool)> {
    let mut quote: Option<char> = None;
    sql.char_indices().map(move |(at, c)| match quote {
        Some(open) => {
            // A doubled quote closes and opens again: the same in effect.
            if c == open {
                quote = None;
            }
            (at, c, false)
        }
        None if c == '\'' || c == '"' => {
            quote = Some(c);
            (at, c, false)
        }
        None => (at, c, true),
    })
}

/// The statements of a simple query, without semicolons, blank ones left out.
pub(crate) fn split_statements(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    for (at, _, _) in scan(sql).filter(|&(_, c, outside)| outside && c == ';') {
        statements.extend(sql.get(start..at));
        start = at + 1;
    }
    statements.extend(sql.get(start..));
    statements.into_iter().map(str::trim).filter(|s| !s.is_empty()).collect()
}

/// One statement without its semicolon; an error if there are several.
pub(crate) fn single_statement(sql: &str) -> Result<&str, QueryError> {
    match split_statements(sql).as_slice() {
        [] => Ok(""),
        [one] => Ok(one),
        _ => Err(QueryError::new(
            SqlState::SYNTAX_ERROR,
            "cannot insert multiple commands into a prepared statement",
        )),
    }
}

/// The places `$n` outside of quotes: byte range and n.
fn placeholders(sql: &str) -> Vec<(std::ops::Range<usize>, usize)> {
    let mut found = Vec::new();
    let mut dollar: Option<usize> = None;
    let mut finish = |start: usize, end: usize| {
        if let Some(n) = sql.get(start + 1..end).and_then(|digits| digits.parse().ok()) {
            found.push((start..end, n));
        }
    };
    for (at, c, outside) in scan(sql) {
        if !(outside && c.is_ascii_digit()) {
            // Whatever was begun ends here.
            if let Some(start) = dollar.take() {
                finish(start, at);
            }
        }
        if outside && c == '$' {
            dollar = Some(at);
        }
    }
    if let Some(start) = dollar {
        finish(start, sql.len());
    }
    found
}

/// How many parameters `sql` needs: its highest `$n`.
pub(crate) fn parameter_count(sql: &str) -> Result<usize, QueryError> {
    let numbers: Vec<usize> = placeholders(sql).into_iter().map(|(_, n)| n).collect();
    if let Some(&bad) = numbers.iter().find(|&&n| n == 0 || n > limits::PARAMETERS_MAX) {
        return Err(QueryError::new(
            SqlState::UNDEFINED_PARAMETER,
            format!("there is no parameter ${bad}"),
        ));
    }
    Ok(numbers.into_iter().max().unwrap_or(0))
}

/// Puts the values in place of `$n`, as string constants or NULL.
pub(crate) fn substitute(sql: &str, values: &[Option<String>]) -> Result<String, QueryError> {
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    for (range, n) in placeholders(sql) {
        let value = n.checked_sub(1).and_then(|i| values.get(i)).ok_or_else(|| {
            QueryError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${n}"))
        })?;
        out.push_str(sql.get(copied..range.start).unwrap_or_default());
        match value {
            Some(text) => {
                out.push('\'');
                out.push_str(&text.replace('\'', "''"));
                out.push('\'');
            }
            None => out.push_str("NULL"),
        }
        copied = range.end;
        if out.len() > limits::PREPARED_BYTES_MAX {
            return Err(QueryError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("the statement exceeds {} bytes", limits::PREPARED_BYTES_MAX),
            ));
        }
    }
    out.push_str(sql.get(copied..).unwrap_or_default());
    Ok(out)
}

/// The words of a command: separated by white space, or quoted with `'` or `"` (doubled inside).
///
/// Fails with `SYNTAX_ERROR` if a quote is not closed.
pub fn command_words(sql: &str) -> Result<Vec<String>, QueryError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = sql.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some(inner) if inner != c => word.push(inner),
                        Some(_) if rest.next_if_eq(&c).is_some() => word.push(c),
                        Some(_) => break,
                        None => {
                            return Err(QueryError::new(
                                SqlState::SYNTAX_ERROR,
                                format!("unterminated quoted string in \"{sql}\""),
                            ));
                        }
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn semicolons_in_quotes_are_text() {
        assert_eq!(split_statements(" a ;; b ';' \";\" ; "), ["a", "b ';' \";\""]);
        assert!(split_statements(" ;; ").is_empty());
        assert!(single_statement("a;b").is_err());
    }

    #[test]
    fn placeholders_outside_quotes_only() {
        let values = [Some("it's".to_owned()), None];
        assert_eq!(substitute("x $1 '$1' $2$1", &values).unwrap(), "x 'it''s' '$1' NULL'it''s'");
        assert_eq!(parameter_count("x $3 $ $a '$9' $2").unwrap(), 3);
        assert!(parameter_count("x $0").is_err());
        assert!(parameter_count("x $70000").is_err());
        assert!(substitute("$2", &values[..1]).is_err());
    }

    #[test]
    fn parameters_cannot_multiply_without_bound() {
        let megabyte = [Some("x".repeat(1 << 20))];
        assert!(substitute(&"$1 ".repeat(10), &megabyte).is_ok());
        assert!(substitute(&"$1 ".repeat(100_000), &megabyte).is_err());
    }

    proptest! {
        #[test]
        fn any_parameter_comes_back_as_one_word(values in prop::collection::vec(".*", 1..4)) {
            let sql: Vec<String> = (1..=values.len()).map(|n| format!("${n}")).collect();
            let options: Vec<_> = values.iter().cloned().map(Some).collect();
            let text = substitute(&sql.join(" "), &options).unwrap();
            prop_assert_eq!(single_statement(&text).unwrap(), &text);
            prop_assert_eq!(command_words(&text).unwrap(), values);
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = split_statements(&text);
            let _ = parameter_count(&text);
            let _ = command_words(&text);
        }
    }
}
