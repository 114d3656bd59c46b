//! The command language of the page service: a verb and its arguments, all of them words.
//!
//! Pure: words in, [`Command`] out. Names are resolved later, where the repository is known.

use pageserver_client::{
    BranchName, BranchNameError, Generation, InstanceId, ParseRetentionError, RetentionSpec,
    WriterTextError,
};
use postgres_formats::lsn::ParseLsnError;
use postgres_formats::timestamp::ParseTimestampError;
use postgres_formats::{Lsn, Timestamp};

pub use super::command_spec::{COMMANDS, CommandSpec};
use crate::basebackup::Form;
use crate::wal::followers::{Claim, FollowAs};

/// What a client can ask for. Texts that name a branch, a timeline or a point are as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What the page server is and how it does.
    Status,
    /// All branches.
    BranchList,
    /// One branch.
    BranchShow {
        /// Its name.
        name: String,
    },
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
        /// `branch`, `branch@LSN`, `branch@time`, `branch@-10m`.
        point: String,
        /// When it may go by itself.
        expires: Option<Timestamp>,
    },
    /// Lets a branch be deleted, or not.
    BranchProtect {
        /// Its name.
        name: String,
        /// Whether it is protected from now on.
        protected: bool,
    },
    /// Lets a branch go by itself, or not.
    BranchExpire {
        /// Its name.
        name: String,
        /// When; `None`: never.
        expires: Option<Timestamp>,
    },
    /// Says how much of a branch's history is kept.
    BranchRetain {
        /// Its name.
        name: String,
        /// How much.
        retention: RetentionSpec,
    },
    /// Removes a branch.
    BranchDelete {
        /// Its name.
        name: String,
        /// Whether its history stays for the branches that stand on it.
        reparent: bool,
    },
    /// Lets a branch need no longer what it was made from.
    BranchDetach {
        /// Its name.
        name: String,
        /// Whether the answer comes when that is done.
        wait: bool,
    },
    /// Gives a branch another name.
    BranchRename {
        /// Its name so far.
        old: String,
        /// Its name from now on.
        new: String,
    },
    /// All tags.
    TagList,
    /// A new tag at a point.
    TagCreate {
        /// Its name.
        name: String,
        /// As for a branch.
        point: String,
    },
    /// Removes a tag.
    TagDelete {
        /// Its name.
        name: String,
    },
    /// Switches the connection to binary page requests.
    PageStream {
        /// Branch or timeline.
        timeline: String,
        /// The generation of the compute that asks, if it writes the timeline.
        generation: Option<Generation>,
    },
    /// A tar of everything a compute needs to start.
    BaseBackup {
        /// Branch or timeline.
        timeline: String,
        /// At this position; the last record if absent.
        lsn: Option<Lsn>,
        /// How it has the commit log and its like.
        form: Form,
    },
    /// Starts to follow a server's WAL, or goes on at another address.
    CallMeMaybe {
        /// Branch or timeline.
        timeline: String,
        /// Where the server is.
        connstr: String,
        /// Which compute it is, if it is one.
        follow_as: Option<FollowAs>,
    },
    /// Stops following.
    ForgetMeMaybe {
        /// Branch or timeline.
        timeline: String,
    },
    /// Who writes a timeline, and how far its WAL has come.
    WriterShow {
        /// Branch or timeline.
        timeline: String,
    },
    /// Who writes which timeline.
    WriterList,
    /// Makes a compute the writer of a timeline.
    WriterClaim {
        /// Branch or timeline.
        timeline: String,
        /// Who wants to be the writer.
        claim: Claim,
    },
    /// Takes the role from a compute.
    WriterRelease {
        /// Branch or timeline.
        timeline: String,
        /// Which compute.
        instance: InstanceId,
    },
    /// The timelines that no branch names any more.
    KeptList,
    /// What computes and readers need of history.
    LeaseList,
    /// Keeps history for somebody.
    LeaseSet {
        /// Who.
        holder: InstanceId,
        /// What it is called.
        name: BranchName,
        /// Branch or timeline.
        timeline: String,
        /// At which LSN.
        lsn: Lsn,
        /// For how many seconds, unless renewed; `None`: until it is dropped.
        lasts: Option<u64>,
        /// Whether at all LSNs from there on.
        since: bool,
    },
    /// Keeps it for one LSN of a lease only.
    LeaseNarrow {
        /// Who has the lease.
        holder: InstanceId,
        /// Which LSN.
        lsn: Lsn,
    },
    /// Lets a lease last for its time from now on.
    LeaseRenew {
        /// Who has it.
        holder: InstanceId,
    },
    /// Ends a lease.
    LeaseDrop {
        /// Who has it.
        holder: InstanceId,
    },
    /// Says that there is no compute without a lease.
    LeaseAllKnown,
    /// Puts the history of a timeline into layers up to its end.
    Checkpoint {
        /// Branch or timeline.
        timeline: String,
    },
    /// Puts the history of a timeline into few layers, with an image at its end.
    Compact {
        /// Branch or timeline.
        timeline: String,
    },
    /// What is being done about layers.
    WorkList,
    /// Removes layers of a timeline that nobody needs.
    Gc {
        /// Branch or timeline.
        timeline: String,
        /// Only tells which these are.
        dry: bool,
    },
    /// The LSN of a moment.
    LsnAt {
        /// Branch or timeline.
        timeline: String,
        /// The moment.
        time: Timestamp,
    },
    /// The moment of an LSN.
    TimestampAt {
        /// Branch or timeline.
        timeline: String,
        /// The position.
        lsn: Lsn,
    },
    /// The commands there are.
    Help,
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SET`: drivers send them by themselves, nothing is done.
    Ignored {
        /// The command tag of the reply.
        tag: &'static str,
    },
}

/// Why words are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing there.
    #[error("empty command")]
    Empty,
    /// The first word is no command.
    #[error("unknown command \"{0}\"")]
    Unknown(String),
    /// Too few or too many arguments.
    #[error("wrong number of arguments: the command is {0}")]
    Usage(&'static str),
    /// A text that should be an LSN is not.
    #[error("{0}")]
    Lsn(#[from] ParseLsnError),
    /// A text that should be a time is not.
    #[error("{0}")]
    Timestamp(#[from] ParseTimestampError),
    /// A text that should be a generation or an instance is not.
    #[error("{0}")]
    Writer(#[from] WriterTextError),
    /// A text that should be a retention is not.
    #[error("{0}")]
    Retention(#[from] ParseRetentionError),
    /// A text that should be the name of a compute is not.
    #[error("{0}")]
    Name(#[from] BranchNameError),
}

impl Command {
    /// Reads one command from its words.
    pub fn parse(words: &[String]) -> Result<Command, ParseError> {
        let Some((verb, args)) = words.split_first() else { return Err(ParseError::Empty) };
        if let Some(tag) = ignored_tag(verb) {
            return Ok(Command::Ignored { tag });
        }
        let spec = CommandSpec::find(verb).ok_or_else(|| ParseError::Unknown(verb.clone()))?;
        let command = match (spec.verb(), args) {
            ("status", []) => Command::Status,
            ("branch_list", []) => Command::BranchList,
            ("branch_show", [name]) => Command::BranchShow { name: name.clone() },
            ("timeline_show", [t]) => Command::TimelineShow { timeline: t.clone() },
            ("compute_list", []) => Command::ComputeList,
            ("branch_create", [name, point, expires @ ..]) => Command::BranchCreate {
                name: name.clone(),
                point: point.clone(),
                expires: optional_time(spec, expires)?,
            },
            ("branch_protect", [name]) => {
                Command::BranchProtect { name: name.clone(), protected: true }
            }
            ("branch_unprotect", [name]) => {
                Command::BranchProtect { name: name.clone(), protected: false }
            }
            ("branch_expire", [name, expires @ ..]) => {
                Command::BranchExpire { name: name.clone(), expires: optional_time(spec, expires)? }
            }
            ("branch_retain", [name, retention]) => {
                Command::BranchRetain { name: name.clone(), retention: retention.parse()? }
            }
            ("branch_delete", [name]) => {
                Command::BranchDelete { name: name.clone(), reparent: false }
            }
            ("branch_delete", [name, word]) if word.eq_ignore_ascii_case("reparent") => {
                Command::BranchDelete { name: name.clone(), reparent: true }
            }
            ("branch_detach", [name]) => Command::BranchDetach { name: name.clone(), wait: false },
            ("branch_detach", [name, word]) if word.eq_ignore_ascii_case("wait") => {
                Command::BranchDetach { name: name.clone(), wait: true }
            }
            ("branch_rename", [old, new]) => {
                Command::BranchRename { old: old.clone(), new: new.clone() }
            }
            ("tag_list", []) => Command::TagList,
            ("tag_create", [name, point]) => {
                Command::TagCreate { name: name.clone(), point: point.clone() }
            }
            ("tag_delete", [name]) => Command::TagDelete { name: name.clone() },
            ("pagestream", [t]) => Command::PageStream { timeline: t.clone(), generation: None },
            ("pagestream", [t, generation]) => {
                Command::PageStream { timeline: t.clone(), generation: Some(generation.parse()?) }
            }
            ("basebackup", [t, rest @ ..]) => {
                let (lsn, form) = match rest {
                    [] => (None, Form::WholeSlrus),
                    [lsn] => (Some(lsn), Form::WholeSlrus),
                    [lsn, word] if word.eq_ignore_ascii_case("stubs") => (Some(lsn), Form::Stubs),
                    [lsn, word] if word.eq_ignore_ascii_case("whole") => (Some(lsn), Form::Whole),
                    _ => return Err(ParseError::Usage(spec.usage)),
                };
                let lsn = lsn.map(|lsn| lsn.parse()).transpose()?;
                Command::BaseBackup { timeline: t.clone(), lsn, form }
            }
            ("callmemaybe", [t, connstr]) => Command::CallMeMaybe {
                timeline: t.clone(),
                connstr: connstr.clone(),
                follow_as: None,
            },
            ("callmemaybe", [t, connstr, instance, generation]) => Command::CallMeMaybe {
                timeline: t.clone(),
                connstr: connstr.clone(),
                follow_as: Some(FollowAs {
                    instance: instance.parse()?,
                    generation: generation.parse()?,
                }),
            },
            ("forgetmemaybe", [t]) => Command::ForgetMeMaybe { timeline: t.clone() },
            ("writer_show", [t]) => Command::WriterShow { timeline: t.clone() },
            ("writer_list", []) => Command::WriterList,
            ("writer_claim", [t, instance, name, after]) => Command::WriterClaim {
                timeline: t.clone(),
                claim: Claim {
                    instance: instance.parse()?,
                    name: name.parse()?,
                    after: after.parse()?,
                },
            },
            ("writer_release", [t, instance]) => {
                Command::WriterRelease { timeline: t.clone(), instance: instance.parse()? }
            }
            ("kept_list", []) => Command::KeptList,
            ("lease_list", []) => Command::LeaseList,
            ("lease_set", [holder, name, t, lsn, rest @ ..]) => {
                let usage = || ParseError::Usage(spec.usage);
                let (lasts, since) = match rest {
                    [] => (None, false),
                    [lasts] => (Some(lasts), false),
                    [lasts, word] if word.eq_ignore_ascii_case("since") => (Some(lasts), true),
                    _ => return Err(usage()),
                };
                Command::LeaseSet {
                    holder: holder.parse()?,
                    name: name.parse()?,
                    timeline: t.clone(),
                    lsn: lsn.parse()?,
                    lasts: lasts.map(|text| text.parse().map_err(|_| usage())).transpose()?,
                    since,
                }
            }
            ("lease_narrow", [holder, lsn]) => {
                Command::LeaseNarrow { holder: holder.parse()?, lsn: lsn.parse()? }
            }
            ("lease_renew", [holder]) => Command::LeaseRenew { holder: holder.parse()? },
            ("lease_drop", [holder]) => Command::LeaseDrop { holder: holder.parse()? },
            ("lease_all_known", []) => Command::LeaseAllKnown,
            ("gc", [t]) => Command::Gc { timeline: t.clone(), dry: false },
            ("gc", [t, word]) if word.eq_ignore_ascii_case("dry") => {
                Command::Gc { timeline: t.clone(), dry: true }
            }
            ("compact", [t]) => Command::Compact { timeline: t.clone() },
            ("work_list", []) => Command::WorkList,
            ("checkpoint", [t]) => Command::Checkpoint { timeline: t.clone() },
            ("lsn_at", [t, time]) => Command::LsnAt { timeline: t.clone(), time: time.parse()? },
            ("timestamp_at", [t, lsn]) => {
                Command::TimestampAt { timeline: t.clone(), lsn: lsn.parse()? }
            }
            ("help", []) => Command::Help,
            _ => return Err(ParseError::Usage(spec.usage)),
        };
        Ok(command)
    }
}

fn optional_time(spec: &CommandSpec, words: &[String]) -> Result<Option<Timestamp>, ParseError> {
    match words {
        [] => Ok(None),
        [time] => Ok(Some(time.parse()?)),
        _ => Err(ParseError::Usage(spec.usage)),
    }
}

/// The tag that answers a statement which drivers send by themselves.
pub fn ignored_tag(verb: &str) -> Option<&'static str> {
    match verb.to_ascii_lowercase().as_str() {
        "begin" | "start" => Some("BEGIN"),
        "commit" | "end" => Some("COMMIT"),
        "rollback" | "abort" => Some("ROLLBACK"),
        "set" => Some("SET"),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests;
