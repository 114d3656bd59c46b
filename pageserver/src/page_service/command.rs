//! The command language of the page service: words, and strings in single quotes.
//!
//! Pure: text in, [`Command`] out. Names are resolved later, where the repository is known.

use postgres_formats::Lsn;

/// What a client can ask for. Texts that name a branch, a timeline or a point are as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What the page server is and how it does.
    Status,
    /// All branches.
    BranchList,
    /// One timeline's positions and origin.
    TimelineShow {
        /// Branch or timeline.
        timeline: String,
    },
    /// The servers whose WAL is followed.
    ComputeList,
    /// A new branch at a point.
    BranchCreate {
        /// Its name.
        name: String,
        /// `branch`, `branch@LSN`, `branch@time`.
        point: String,
    },
    /// Removes a branch.
    BranchDelete {
        /// Its name.
        name: String,
    },
    /// Gives a branch another name.
    BranchRename {
        /// Its name so far.
        old: String,
        /// Its name from now on.
        new: String,
    },
    /// Switches the connection to binary page requests.
    PageStream {
        /// Branch or timeline.
        timeline: String,
    },
    /// A tar of everything a compute needs to start.
    BaseBackup {
        /// Branch or timeline.
        timeline: String,
        /// At this position; the last record if absent.
        lsn: Option<Lsn>,
    },
    /// Starts to follow a server's WAL, or goes on at another address.
    CallMeMaybe {
        /// Branch or timeline.
        timeline: String,
        /// Where the server is.
        connstr: String,
    },
    /// Stops following.
    ForgetMeMaybe {
        /// Branch or timeline.
        timeline: String,
    },
    /// The commands there are.
    Help,
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SET`: drivers send them by themselves, nothing is done.
    Ignored {
        /// The command tag of the reply.
        tag: &'static str,
    },
}

/// Every command's usage, in the order in which `help` lists them.
pub const USAGES: &[(&str, &str)] = &[
    ("status", "what the page server is and how it does"),
    ("branch_list", "all branches"),
    ("timeline_show T", "positions and origin of a timeline"),
    ("compute_list", "the servers whose WAL is followed"),
    ("branch_create NAME POINT", "create a branch at a point of another"),
    ("branch_delete NAME", "delete a branch that nothing depends on"),
    ("branch_rename OLD NEW", "give a branch another name"),
    ("pagestream T", "switch the connection to binary page requests"),
    ("basebackup T [LSN]", "a tar of the files a compute starts from"),
    ("callmemaybe T CONNSTR", "follow the WAL of the server at CONNSTR"),
    ("forgetmemaybe T", "stop following"),
    ("help", "this list"),
];

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A quote that is never closed.
    #[error("unterminated quoted string in the command")]
    UnterminatedString,
    /// More follows after a semicolon.
    #[error("only one command at a time: nothing may follow the semicolon")]
    SeveralCommands,
    /// Nothing there.
    #[error("empty command; \"help\" lists the commands")]
    Empty,
    /// The first word is no command.
    #[error("unknown command \"{0}\"; \"help\" lists the commands")]
    Unknown(String),
    /// Too few or too many arguments.
    #[error("wrong number of arguments; usage: {0}")]
    Usage(&'static str),
    /// A text that should be an LSN is not.
    #[error("{0}")]
    Lsn(#[from] postgres_formats::lsn::ParseLsnError),
}

impl Command {
    /// Reads one command.
    pub fn parse(text: &str) -> Result<Command, ParseError> {
        let words = split_words(text)?;
        let Some((verb, args)) = words.split_first() else { return Err(ParseError::Empty) };
        let verb_lower = verb.to_ascii_lowercase();
        let tag = match verb_lower.as_str() {
            "begin" | "start" => Some("BEGIN"),
            "commit" | "end" => Some("COMMIT"),
            "rollback" | "abort" => Some("ROLLBACK"),
            "set" => Some("SET"),
            _ => None,
        };
        if let Some(tag) = tag {
            return Ok(Command::Ignored { tag });
        }
        let usage = USAGES
            .iter()
            .map(|(usage, _)| *usage)
            .find(|usage| usage.split(' ').next() == Some(verb_lower.as_str()))
            .ok_or_else(|| ParseError::Unknown(verb.clone()))?;
        let command = match (verb_lower.as_str(), args) {
            ("status", []) => Command::Status,
            ("branch_list", []) => Command::BranchList,
            ("timeline_show", [t]) => Command::TimelineShow { timeline: t.clone() },
            ("compute_list", []) => Command::ComputeList,
            ("branch_create", [name, point]) => {
                Command::BranchCreate { name: name.clone(), point: point.clone() }
            }
            ("branch_delete", [name]) => Command::BranchDelete { name: name.clone() },
            ("branch_rename", [old, new]) => {
                Command::BranchRename { old: old.clone(), new: new.clone() }
            }
            ("pagestream", [t]) => Command::PageStream { timeline: t.clone() },
            ("basebackup", [t]) => Command::BaseBackup { timeline: t.clone(), lsn: None },
            ("basebackup", [t, lsn]) => {
                Command::BaseBackup { timeline: t.clone(), lsn: Some(lsn.parse()?) }
            }
            ("callmemaybe", [t, connstr]) => {
                Command::CallMeMaybe { timeline: t.clone(), connstr: connstr.clone() }
            }
            ("forgetmemaybe", [t]) => Command::ForgetMeMaybe { timeline: t.clone() },
            ("help", []) => Command::Help,
            _ => return Err(ParseError::Usage(usage)),
        };
        Ok(command)
    }
}

/// Splits at white space; `'…'` keeps what is inside together, with `''` for a quote itself.
fn split_words(text: &str) -> Result<Vec<String>, ParseError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(ParseError::UnterminatedString),
                        Some('\'') if chars.peek() == Some(&'\'') => {
                            chars.next();
                            word.push('\'');
                        }
                        Some('\'') => break,
                        Some(c) => word.push(c),
                    }
                }
            }
            ';' => {
                if chars.any(|c| !c.is_whitespace() && c != ';') {
                    return Err(ParseError::SeveralCommands);
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
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn words_and_quoted_strings() {
        let words = |text| split_words(text).unwrap();
        assert_eq!(words("  a  b\tc\n"), ["a", "b", "c"]);
        assert_eq!(words("f 'a b' '' 'it''s'"), ["f", "a b", "", "it's"]);
        assert_eq!(words("pre'fix ed'post"), ["prefix edpost"]);
        assert_eq!(words("status ;; "), ["status"]);
        assert_eq!(words(""), Vec::<String>::new());
        assert_eq!(split_words("a 'b"), Err(ParseError::UnterminatedString));
        assert_eq!(split_words("a; b"), Err(ParseError::SeveralCommands));
    }

    #[test]
    fn commands_with_their_arguments() {
        let parse = |text| Command::parse(text).unwrap();
        assert_eq!(parse("STATUS;"), Command::Status);
        assert_eq!(
            parse("branch_create dev main@0/16B3748"),
            Command::BranchCreate { name: "dev".into(), point: "main@0/16B3748".into() }
        );
        assert_eq!(
            parse("callmemaybe main 'host=/tmp/a port=5432 user=zenith'"),
            Command::CallMeMaybe {
                timeline: "main".into(),
                connstr: "host=/tmp/a port=5432 user=zenith".into()
            }
        );
        assert_eq!(
            parse("basebackup main 0/16B3748"),
            Command::BaseBackup { timeline: "main".into(), lsn: Some(Lsn::new(0x16B3748)) }
        );
        assert_eq!(
            parse("basebackup main"),
            Command::BaseBackup { timeline: "main".into(), lsn: None }
        );
        assert_eq!(parse("begin"), Command::Ignored { tag: "BEGIN" });
        assert_eq!(parse("set a to 'b c'"), Command::Ignored { tag: "SET" });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text| Command::parse(text).unwrap_err().to_string();
        assert!(message("select 1").contains("unknown command \"select\""));
        assert!(message("branch_create dev").contains("usage: branch_create NAME POINT"));
        assert!(message("status now").contains("usage: status"));
        assert!(message("basebackup main 16B3748").contains("\"16B3748\" is not an LSN"));
        assert!(message(" ").contains("empty"));
    }

    #[test]
    fn every_usage_is_a_command() {
        for (usage, _) in USAGES {
            let text = usage.replace("[LSN]", "0/1");
            assert!(Command::parse(&text).is_ok(), "{text}");
        }
    }
}
