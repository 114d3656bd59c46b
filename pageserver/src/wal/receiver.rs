//! `Receiver`: one connection to a server whose WAL a timeline follows.
//!
//! WAL goes from the socket to `Timeline::receive_wal`, is made durable in groups, and only then
//! reported as flushed: what the server is told survives a crash of this machine. While a group is
//! being synced the next one gathers in the socket, so that the slower the disk, the larger the
//! groups. How large they are otherwise is `Pace`'s to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pageserver_client::STANDBY_NAME;
use postgres_formats::{Lsn, SystemId, TimelineId};
use postgres_wire::SqlState;
use postgres_wire::client::{ConnectParams, Timeouts};
use postgres_wire::replication::{
    IdentifySystem, ReplicationClient, ReplicationError, ReplicationMessage, ReplicationStream,
};
use slog::{Logger, info};

use super::follower::Link;
use super::identity::{self, Refusal};
use super::joint::Joint;
use super::pace::{self, Pace};
pub use super::receive_error::ReceiveError;
use super::sync_aside::SyncAside;
use crate::repository::Repository;
use crate::timeline::{Positions, Timeline};
use crate::writer::{WriterFact, WriterRole};

const SYNCHRONOUS_STANDBYS: &str = "synchronous_standby_names";

/// Small messages that have come already are taken in together, up to about so many bytes.
const TOGETHER_BYTES_MAX: usize = 128 << 10;
/// The server hears from us at least this often; its `wal_sender_timeout` is 60 s by default.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// A server that hears from us sends nothing as long as it has no WAL (`WalSndKeepaliveIfNecessary`,
/// `replication/walsender.c`). One that has been silent for so long is asked for an answer each time.
const ASKED_AFTER: Duration = Duration::from_secs(30);
/// One that has been silent for longer than this, though it was asked, is gone without a word.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(90);
/// A stream that has lasted this long, or kept WAL durably, is one that works.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
const ANNOUNCED_AFTER: Duration = Duration::from_millis(500);
/// How soon is looked whether a sync aside has ended.
const ASIDE_LOOK_EVERY: Duration = Duration::from_millis(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For what is asked on the side, while somebody waits.
const SIDE_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    read: Some(Duration::from_secs(2)),
    write: Some(Duration::from_secs(2)),
};
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A failure, and whether all had been well before it.
pub(super) struct Failure {
    pub(super) reason: ReceiveError,
    pub(super) had_settled: bool,
}

/// Receives the WAL of one timeline from one server.
pub(super) struct Receiver {
    repository: Arc<Repository>,
    timeline: TimelineId,
    /// Who writes the timeline. Does not change while there is a receiver.
    writer: Arc<WriterRole>,
    params: ConnectParams,
    link: Arc<Link>,
    log: Logger,
}

impl Receiver {
    pub(super) fn new(
        repository: Arc<Repository>,
        timeline: TimelineId,
        writer: Arc<WriterRole>,
        params: ConnectParams,
        link: Arc<Link>,
        log: Logger,
    ) -> Receiver {
        let params = ConnectParams { application_name: Some(STANDBY_NAME.to_owned()), ..params };
        Receiver { repository, timeline, writer, params, link, log }
    }

    /// Connects and receives until told to stop (`Ok`) or until something goes wrong.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let not_yet = |reason| Failure { reason, had_settled: false };
        let Connected { timeline, stream, joint, server_end, awaited } =
            self.connect().map_err(not_yet)?;
        let mut session = Session {
            timeline: &timeline,
            aside: SyncAside::new(timeline.clone()),
            stream,
            link: &self.link,
            pace: Pace::new(awaited, Instant::now()),
            last_status: Instant::now(),
            last_heard: Instant::now(),
            settled: Settled { since: Instant::now(), announced: false },
            log: &self.log,
        };
        timeline.commits_wait(awaited);
        let followed = session.close_joint(joint).map_err(not_yet).and_then(|()| {
            timeline.source_ends_at(server_end);
            self.link.set_streaming();
            let result = session.receive();
            let had_settled = session.settled.since.elapsed() >= SETTLED_AFTER;
            result.map_err(|reason| Failure { reason, had_settled })
        });
        timeline.commits_wait(false);
        followed
    }

    fn connect(&self) -> Result<Connected, ReceiveError> {
        let timeouts = Timeouts {
            connect: CONNECT_TIMEOUT,
            read: Some(REPLY_TIMEOUT),
            write: Some(REPLY_TIMEOUT),
        };
        let stop = self.link.stop_signal();
        let mut client = ReplicationClient::connect(&self.params, timeouts, Some(stop))?;
        let system = client.identify_system()?;
        // Only now: a timeline whose server is away for weeks need not be in memory.
        let timeline = self.repository.timeline(self.timeline)?;
        let begun = self.begin(&timeline, client, &system);
        if let Err(error) = &begun
            && let Some(kind) = error.stop_kind()
        {
            timeline.stop_receiving(error, kind);
        }
        let (stream, joint, awaited) = begun?;
        Ok(Connected { timeline, stream, joint, server_end: system.wal_end, awaited })
    }

    fn begin(
        &self,
        timeline: &Timeline,
        mut client: ReplicationClient,
        system: &IdentifySystem,
    ) -> Result<(ReplicationStream, Joint, bool), ReceiveError> {
        let (expected, tli) = (timeline.cluster().system_id, timeline.cluster().tli);
        if system.system_id != expected {
            return Err(ReceiveError::OtherCluster { expected, found: system.system_id });
        }
        if system.tli != tli {
            return Err(ReceiveError::OtherHistory { expected: tli, found: system.tli });
        }
        let writer = self.writer.fact();
        let found = identity::ask(&mut client)?;
        identity::check(self.timeline, writer.as_ref(), found.as_deref())?;
        let received = timeline.restart_receiving()?;
        if system.wal_end < received {
            return Err(Refusal::Behind { end: system.wal_end, received }.into());
        }
        // Of a server without a name it is not known since when its WAL is its own.
        let own_start = writer.map_or(received, |writer| writer.lsn);
        let joint = Joint::new(timeline, own_start, received);
        let standbys = client.show(SYNCHRONOUS_STANDBYS)?;
        let awaited = pace::may_wait_for(&standbys, STANDBY_NAME);
        let slot = slot_name(self.timeline);
        client.create_physical_slot(&slot, true, true)?;
        let start = joint.start();
        let stream = client
            .start_physical(Some(&slot), start, tli)
            .map_err(|source| stream_error(start, source))?;
        Ok((stream, joint, awaited))
    }
}

/// A stream that has been begun, on a server that is the right one as far as it says.
struct Connected {
    timeline: Arc<Timeline>,
    stream: ReplicationStream,
    joint: Joint,
    /// Where the server's WAL ended a moment ago.
    server_end: Lsn,
    /// Whether its commits wait for what is durable here.
    awaited: bool,
}

/// Drops a timeline's slot on a server that is no longer followed, so that the server need not keep
/// WAL for it any longer. Only where that server belongs to the same cluster; says whether it did.
pub(super) fn drop_slot(
    params: &ConnectParams,
    timeline: TimelineId,
    system: SystemId,
) -> Result<bool, ReplicationError> {
    let mut client = ReplicationClient::connect(params, SIDE_TIMEOUTS, None)?;
    if client.identify_system()?.system_id != system {
        return Ok(false);
    }
    // The connection that used it has just been closed, which the server may not have noticed.
    client.drop_slot(&slot_name(timeline), true)?;
    Ok(true)
}

/// Whether the server at `params` is the present writer of a timeline. One without a name is taken
/// for it if it belongs to the same cluster.
pub(super) fn is_writer(
    params: &ConnectParams,
    timeline: TimelineId,
    repository: &Repository,
    present: Option<&WriterFact>,
) -> Result<bool, ReceiveError> {
    let mut client = ReplicationClient::connect(params, SIDE_TIMEOUTS, None)?;
    let system = repository.timeline(timeline)?.cluster().system_id;
    if client.identify_system()?.system_id != system {
        return Ok(false);
    }
    let found = identity::ask(&mut client)?;
    Ok(identity::check(timeline, present, found.as_deref()).is_ok())
}

/// The slot's name on the server: one per timeline, within PostgreSQL's 63 bytes.
pub fn slot_name(timeline: TimelineId) -> String {
    format!("zenith_{timeline}")
}

/// Tells apart what the server can no longer give, whether it says so at once or when it has to
/// read the WAL. `start` is where receiving has to go on.
fn stream_error(start: Lsn, source: ReplicationError) -> ReceiveError {
    let gone = match &source {
        ReplicationError::WalGone { .. } => true,
        // The slot has been invalidated, for it held back more than `max_slot_wal_keep_size`.
        ReplicationError::Client(error) => {
            error.sqlstate() == Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
        }
        _ => false,
    };
    if gone { ReceiveError::WalGone { start, source } } else { source.into() }
}

/// An established stream.
struct Session<'a> {
    timeline: &'a Timeline,
    aside: SyncAside,
    stream: ReplicationStream,
    link: &'a Link,
    pace: Pace,
    last_status: Instant,
    last_heard: Instant,
    settled: Settled,
    log: &'a Logger,
}

/// Whether a stream works: one that breaks at once, over and over, is not worth a line each time.
struct Settled {
    since: Instant,
    announced: bool,
}

impl Session<'_> {
    /// Takes what was received before once more, to see that it is the same. Until then the server is
    /// told of nothing that it could take for an acknowledgement.
    fn close_joint(&mut self, mut joint: Joint) -> Result<(), ReceiveError> {
        while !joint.is_closed() {
            let message = self
                .stream
                .next(STATUS_INTERVAL)
                .map_err(|error| stream_error(joint.start(), error))?;
            match message {
                None if self.last_heard.elapsed() > SILENCE_MAX => {
                    return Err(ReceiveError::Silent);
                }
                None => continue,
                Some(_) => self.last_heard = Instant::now(),
            }
            if let Some(ReplicationMessage::XLogData { start, bytes, .. }) = message {
                let rest = joint.compare(&bytes)?;
                if !rest.is_empty() {
                    let behind = bytes.len() - rest.len();
                    self.take(start.saturating_add(behind as u64), rest)?;
                }
            }
        }
        Ok(())
    }

    /// Takes in WAL; it is synced with its group.
    fn take(&mut self, start: Lsn, bytes: &[u8]) -> Result<(), ReceiveError> {
        if let Err(error) = self.timeline.receive_wal(start, bytes) {
            // What came before it is good, and somebody may be waiting for that.
            self.timeline.sync_wal()?;
            self.report()?;
            return Err(error.into());
        }
        self.pace.came(bytes.len(), Instant::now());
        let positions = self.timeline.positions();
        self.link.set_progress(positions.received, flushed(&positions));
        Ok(())
    }

    /// Takes in a message's WAL, and that of those that have come with it: each turn has its costs.
    fn take_together(&mut self, start: Lsn, first: Bytes) -> Result<(), ReceiveError> {
        if first.len() >= TOGETHER_BYTES_MAX {
            return self.take(start, &first);
        }
        let mut together = Vec::new();
        while let Some(message) = self.stream.next_buffered()? {
            // Without gaps, which the stream sees to.
            if let ReplicationMessage::XLogData { bytes, .. } = message {
                if together.is_empty() {
                    together.extend_from_slice(&first);
                }
                together.extend_from_slice(&bytes);
                if together.len() >= TOGETHER_BYTES_MAX {
                    break;
                }
            }
        }
        let all = if together.is_empty() { &first[..] } else { &together };
        self.take(start, all)
    }

    fn receive(&mut self) -> Result<(), ReceiveError> {
        self.report()?;
        loop {
            let rest = self.pace.rest_until();
            if let Some(until) = rest {
                self.timeline.rest_until(until);
            }
            let wait = match (rest, self.pace.has_group(), self.settled.announced) {
                // Nothing is left of it, unless somebody is in a hurry.
                (Some(until), ..) => until.saturating_duration_since(Instant::now()),
                (None, false, _) if self.aside.is_busy() => ASIDE_LOOK_EVERY,
                // With a group begun, only what is there already may join it.
                (None, true, _) => Duration::ZERO,
                (None, false, false) => ANNOUNCED_AFTER,
                (None, false, true) => STATUS_INTERVAL,
            };
            let message = match self.stream.next(wait) {
                Ok(message) => message,
                Err(error) => return self.end(error),
            };
            let idle = message.is_none();
            if !idle {
                self.last_heard = Instant::now();
            } else {
                self.pace.drained(Instant::now());
            }
            if idle && self.last_heard.elapsed() > SILENCE_MAX {
                return Err(ReceiveError::Silent);
            }
            if let Some(ReplicationMessage::XLogData { start, bytes, .. }) = message {
                self.take_together(start, bytes)?;
            }
            let mut synced = self.aside.take_finished().transpose()?.is_some();
            if synced {
                self.report()?;
            }
            if self.pace.is_due(idle, Instant::now()) {
                synced |= self.sync_group()?;
            }
            if !self.settled.announced && (synced || idle) {
                self.settled.announced = true;
                info!(self.log, "following"; "received" => %self.timeline.last_received_lsn());
            }
            if self.last_status.elapsed() >= STATUS_INTERVAL {
                self.report()?;
            }
        }
    }

    /// Ends a group: makes it durable, and says so, now or when that has been done aside. Says whether it was now.
    fn sync_group(&mut self) -> Result<bool, ReceiveError> {
        if self.pace.is_worth_a_thread() {
            if self.aside.is_busy() {
                // The disk is slower than the stream.
                self.aside.wait()?;
                self.report()?;
            }
            if self.aside.begin() {
                self.pace.synced();
                return Ok(false);
            }
        }
        self.aside.wait()?;
        let timeline = self.timeline;
        let mut reported = Ok(());
        timeline.sync_wal_and_tell(&mut || reported = self.report())?;
        self.pace.synced();
        reported.map(|()| true)
    }

    /// Keeps what the server gave before the stream ended. Being told to stop is no failure.
    fn end(&mut self, error: ReplicationError) -> Result<(), ReceiveError> {
        self.aside.wait()?;
        self.timeline.sync_wal()?;
        if error.is_stopped() {
            return Ok(());
        }
        Err(stream_error(self.timeline.last_record_lsn(), error))
    }

    /// Tells the server how far its WAL has come.
    ///
    /// Flushed is never reported into the middle of a record: after a loss of the connection the
    /// record is asked for again from its beginning, and by then the server may have removed
    /// everything before what was reported.
    fn report(&mut self) -> Result<(), ReceiveError> {
        let positions = self.timeline.positions();
        let flushed = flushed(&positions);
        self.link.set_progress(positions.received, flushed);
        let records = positions.last_record.min(positions.received);
        let is_asked = self.last_heard.elapsed() >= ASKED_AFTER;
        self.stream.send_status(positions.received, flushed, records, is_asked)?;
        self.last_status = Instant::now();
        Ok(())
    }
}

/// How far everything is durable: to the end of a record, or before.
fn flushed(positions: &Positions) -> Lsn {
    positions.flushed.min(positions.last_record).min(positions.received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_postgresqls() {
        let name = slot_name(TimelineId::from_bytes([0xAB; 16]));
        assert_eq!(name, "zenith_abababababababababababababababab");
        assert!(name.len() < 64);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }
}
