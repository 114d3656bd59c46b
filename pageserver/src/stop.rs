//! `Stop`: that a timeline takes in no more WAL, from where on, and why.
//!
//! A timeline either takes in WAL or stands at a stop. Everything up to the stop is served as ever;
//! whoever asks for more is told of the stop at once. A stop ends by itself when a record behind it
//! has been taken in, be it from a server or from a file that was mended.

use std::fmt;

use postgres_formats::Lsn;

/// What kind of cause a stop has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopKind {
    /// The WAL is not as PostgreSQL wrote it.
    Damaged,
    /// WAL is not there: a gap, a segment that is gone, or one that was cut short.
    Missing,
    /// It is valid WAL, but of another cluster or of another of PostgreSQL's timelines.
    Foreign,
    /// A record is intact, but what it does is not known.
    NotUnderstood,
    /// The file system refuses: it is full, or fails.
    Disk,
    /// The timeline's history begins behind the stop of an ancestor.
    Ancestor,
}

/// Where the WAL is that cannot be taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It came from a server, and nothing of it was kept.
    Received,
    /// It had been durable, and is in the repository; nothing of it is changed.
    OnDisk,
}

/// That a timeline takes in no more WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Everything up to here is there: the place where the first record would begin that is not.
    pub lsn: Lsn,
    /// What kind of cause.
    pub kind: StopKind,
    /// Where the WAL is.
    pub place: Place,
    /// The cause, in one line.
    pub cause: String,
}

impl Stop {
    /// What somebody can do about it.
    fn advice(&self) -> &'static str {
        match (self.kind, self.place) {
            (StopKind::Ancestor, _) => "it goes on once that is mended",
            (StopKind::Disk, _) => "it goes on by itself when the file system works again",
            (StopKind::NotUnderstood, _) => {
                "it goes on with a Zenith that knows the record and is set up for it"
            }
            (StopKind::Damaged | StopKind::Missing | StopKind::Foreign, Place::OnDisk) => {
                "put the file back from a copy, or start the compute that wrote it, which may still \
                 have it; a branch at this LSN goes on without what is lost"
            }
            (StopKind::Foreign, Place::Received) => {
                "let the branch's own compute be followed, or make it anew"
            }
            (StopKind::Missing, Place::Received) => {
                "it is asked for again by itself; a compute that no longer has it must be made anew"
            }
            (StopKind::Damaged, Place::Received) => {
                "it is asked for again by itself; a compute whose own WAL is damaged must be made \
                 anew"
            }
        }
    }

    /// The word for it in listings.
    pub fn state(&self) -> &'static str {
        match (self.kind, self.place) {
            (_, Place::Received) | (StopKind::NotUnderstood, _) => "stopped",
            (_, Place::OnDisk) => "damaged",
        }
    }

    /// The cause and what to do about it.
    pub fn text(&self) -> String {
        format!("{}; {}", self.cause, self.advice())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped at {}: {}", self.lsn, self.text())
    }
}
