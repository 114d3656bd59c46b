//! Whether the server at an address is the one whose WAL a timeline takes.
//!
//! WAL of another server would do harm without being noticed: that of an earlier writer continues the
//! same records, and an address may have been given to another server of the same cluster. So the
//! server is asked who it is, before anything else is done with it. A compute has the answer in a
//! setting of its configuration. A server that is no compute of ours does not know that setting, and
//! is taken only for a timeline that has never had a writer.

use pageserver_client::{WRITER_SETTING, WriterId};
use postgres_formats::{Lsn, TimelineId};
use postgres_wire::SqlState;
use postgres_wire::replication::{ReplicationClient, ReplicationError};

use crate::writer::WriterFact;

/// Why nothing is taken from a server that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It wrote the timeline once.
    #[error(
        "the server is instance {found}, an earlier writer of this timeline: compute \"{by}\" has \
         taken over at {at}; nothing is received from the server, and it can be removed"
    )]
    EarlierWriter {
        /// Instance and generation it has.
        found: String,
        /// Who took over.
        by: String,
        /// Where.
        at: Lsn,
    },
    /// It is some other server.
    #[error(
        "the server is {found}, not compute \"{expected}\", whose address it has; nothing is received \
         from it"
    )]
    Other {
        /// What it is.
        found: String,
        /// Who was expected.
        expected: String,
    },
    /// It is a compute, and the timeline follows a server that is none.
    #[error(
        "the server is {found}, but this timeline follows a server that is no compute; nothing is \
         received from it"
    )]
    Compute {
        /// What it is.
        found: String,
    },
    /// It has less than has been received.
    #[error(
        "the server's WAL ends at {end}, but what was received goes on to {received}: it is an older \
         copy of the server that was followed, or has lost WAL that it had reported as written; \
         nothing is received from it. The branch has everything up to {received}: make the compute \
         anew"
    )]
    Behind {
        /// Where its WAL ends.
        end: Lsn,
        /// Where the received WAL ends.
        received: Lsn,
    },
    /// It has other WAL than has been received.
    #[error(
        "the server's WAL differs from what was received, first at {at}: it is an older copy of the \
         server that was followed and has gone on differently; nothing is received from it. The \
         branch has what was received, up to {received}: make the compute anew"
    )]
    Diverged {
        /// The first byte that differs.
        at: Lsn,
        /// Where the received WAL ends.
        received: Lsn,
    },
}

/// Who the server says it is; `None` if it does not know the setting.
pub(super) fn ask(client: &mut ReplicationClient) -> Result<Option<String>, ReplicationError> {
    match client.show(WRITER_SETTING) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(ReplicationError::Client(error))
            if error.sqlstate() == Some(SqlState::UNDEFINED_OBJECT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Compares who a server says it is with the writer of `timeline`.
pub(super) fn check(
    timeline: TimelineId,
    writer: Option<&WriterFact>,
    found: Option<&str>,
) -> Result<(), Refusal> {
    let Some(writer) = writer else {
        return match found {
            None => Ok(()),
            Some(found) => Err(Refusal::Compute { found: described(found) }),
        };
    };
    let expected = writer.id(timeline);
    let Some(found) = found else {
        return Err(Refusal::Other {
            found: "no compute of this repository".to_owned(),
            expected: writer.name.to_string(),
        });
    };
    match found.parse::<WriterId>() {
        Ok(id) if id == expected => Ok(()),
        Ok(id) if id.timeline == timeline && id.generation < expected.generation => {
            Err(Refusal::EarlierWriter {
                found: format!("{} of generation {}", id.instance, id.generation),
                by: writer.name.to_string(),
                at: writer.lsn,
            })
        }
        _ => Err(Refusal::Other { found: described(found), expected: writer.name.to_string() }),
    }
}

/// The answer of a server that is not the one expected, as part of a sentence.
fn described(found: &str) -> String {
    match found.parse::<WriterId>() {
        Ok(id) => format!(
            "a compute (instance {}, generation {}, timeline {})",
            id.instance, id.generation, id.timeline
        ),
        Err(_) => "a compute that writes no branch".to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use pageserver_client::{Generation, NO_WRITER};

    use super::*;

    #[test]
    fn only_the_present_writer_is_taken() {
        let timeline = TimelineId::from_bytes([1; 16]);
        let writer = WriterFact {
            generation: Generation(2),
            instance: "b".parse().unwrap(),
            name: "main".parse().unwrap(),
            since: 0,
            lsn: Lsn::new(0x16B3748),
            held: true,
        };
        let own = writer.id(timeline);
        let says = |id: &WriterId| check(timeline, Some(&writer), Some(&id.to_string()));
        assert_eq!(says(&own), Ok(()));
        let earlier =
            WriterId { instance: "a".parse().unwrap(), generation: Generation(1), ..own.clone() };
        let text = says(&earlier).unwrap_err().to_string();
        assert!(
            text.contains("instance a of generation 1") && text.contains("0/16B3748"),
            "{text}"
        );
        let same_number = WriterId { instance: "a".parse().unwrap(), ..own.clone() };
        let neighbour = WriterId { timeline: TimelineId::from_bytes([2; 16]), ..own.clone() };
        let later = WriterId { generation: Generation(3), ..own };
        for other in [same_number, neighbour, later] {
            assert!(matches!(says(&other), Err(Refusal::Other { .. })), "{other}");
        }
        for text in [Some(NO_WRITER), None] {
            let refusal = check(timeline, Some(&writer), text).unwrap_err();
            assert!(matches!(refusal, Refusal::Other { .. }), "{refusal}");
        }
    }

    #[test]
    fn a_timeline_without_a_writer_takes_servers_that_are_no_computes() {
        let timeline = TimelineId::from_bytes([1; 16]);
        assert_eq!(check(timeline, None, None), Ok(()));
        let refusal = check(timeline, None, Some(NO_WRITER)).unwrap_err();
        assert!(matches!(refusal, Refusal::Compute { .. }), "{refusal}");
    }
}
