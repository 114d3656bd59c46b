//! Why WAL could not be decoded.

use crate::Lsn;

/// Decoding stopped at `lsn`. See [`WalDecodeError::is_end_of_wal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("WAL at {lsn}: {kind}")]
pub struct WalDecodeError {
    /// Where the fault is: the start of the record, or of the page whose header is wrong.
    pub lsn: Lsn,
    /// What is wrong there.
    pub kind: WalDecodeErrorKind,
}

/// What is wrong with the WAL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalDecodeErrorKind {
    /// Zeros stand where a record would begin.
    #[error("no record here, only zeros")]
    ZeroLength,
    /// Zeros stand where a page header would be.
    #[error("no page here, only zeros")]
    EmptyPage,
    /// The page is a leftover of the segment's earlier use: PostgreSQL recycles segment files.
    #[error("the page still belongs to {found}, from the earlier use of a recycled segment")]
    StalePage {
        /// The position that the page was written for.
        found: Lsn,
    },
    /// The bytes given do not continue those given before.
    #[error("these bytes do not follow the last ones, which end at {expected}")]
    Gap {
        /// Where the bytes should have begun.
        expected: Lsn,
    },
    /// The page was written by another version of PostgreSQL, or is no WAL page.
    #[error("page magic is {found:04X}, but PostgreSQL 15 writes {expected:04X}")]
    BadMagic {
        /// `xlp_magic` of the page.
        found: u16,
        /// The magic that was expected.
        expected: u16,
    },
    /// The flags of a page header make no sense at its place.
    #[error("page flags {info:04X} are not possible here")]
    BadPageFlags {
        /// `xlp_info` of the page.
        info: u16,
    },
    /// The page says that it belongs to a later position.
    #[error("the page says that its position is {found}")]
    WrongPageAddress {
        /// `xlp_pageaddr` of the page.
        found: Lsn,
    },
    /// PostgreSQL's timeline number went down from one page to the next.
    #[error("the page is of PostgreSQL timeline {found}, but the page before it of {before}")]
    TimelineWentBack {
        /// `xlp_tli` of the page.
        found: u32,
        /// `xlp_tli` of an earlier page.
        before: u32,
    },
    /// The page is of another of PostgreSQL's timelines than the only one there should be.
    #[error("the page is of PostgreSQL timeline {found}, not {expected}")]
    WrongTimeline {
        /// `xlp_tli` of the page.
        found: u32,
        /// What it should be.
        expected: u32,
    },
    /// The segment belongs to another cluster.
    #[error("the segment belongs to the cluster with system identifier {found}, not {expected}")]
    WrongSystemId {
        /// `xlp_sysid` of the segment.
        found: u64,
        /// The cluster's own.
        expected: u64,
    },
    /// The segment was written with other sizes of segments or WAL pages.
    #[error("the segment says: {seg_size} bytes a segment, {page_size} bytes a WAL page")]
    WrongGeometry {
        /// `xlp_seg_size` of the segment.
        seg_size: u32,
        /// `xlp_xlog_blcksz` of the segment.
        page_size: u32,
    },
    /// A record should begin behind this page's header, but the page says that one goes on there.
    #[error("the page begins with the rest of a record, where a new one should begin")]
    UnexpectedContinuation,
    /// A record should go on behind this page's header, but the page says something else.
    #[error("the page should go on with {expected} bytes of a record, but says {found}")]
    WrongRemainder {
        /// `xlp_rem_len` of the page, zero if it says that no record goes on there.
        found: u32,
        /// Bytes missing from the record.
        expected: u32,
    },
    /// `xl_tot_len` is impossible.
    #[error("a record of {0} bytes is not possible")]
    BadLength(u32),
    /// `xl_rmid` is not a resource manager.
    #[error("{0} is not a resource manager")]
    BadResourceManager(u8),
    /// `xl_prev` does not name the record before this one.
    #[error("the record says that the one before it is at {found}, not {}",
        expected.map_or("before itself".to_owned(), |lsn| lsn.to_string()))]
    WrongPrev {
        /// `xl_prev` of the record.
        found: Lsn,
        /// Start of the record decoded before, `None` for the first one, which can be checked
        /// only for pointing backwards.
        expected: Option<Lsn>,
    },
    /// The record's checksum is wrong.
    #[error("the record's checksum is {found:08X}, but its bytes give {computed:08X}")]
    BadCrc {
        /// `xl_crc` of the record.
        found: u32,
        /// CRC-32C of its bytes.
        computed: u32,
    },
    /// The record was never completed: PostgreSQL crashed, and wrote a note over the place where
    /// the record would have gone on.
    #[error("the record was left incomplete by a crash, and given up at {at}")]
    Overwritten {
        /// The page that should have continued it.
        at: Lsn,
    },
    /// A page says that it replaces the rest of a record that was given up, but the note that must
    /// follow is missing or names another record.
    #[error("the page gives up the record at {abandoned}, but the note that says so is missing")]
    BadOverwriteNote {
        /// Start of the record that was given up.
        abandoned: Lsn,
    },
}

impl WalDecodeError {
    /// Whether this is what the end of the WAL written so far looks like on disk, rather than
    /// damage: zeros, or pages left from a recycled segment's earlier use.
    ///
    /// A crash can also leave the end in other shapes, such as a record with a wrong checksum.
    /// PostgreSQL's own recovery takes those for the end too; whoever knows that the WAL must go on
    /// (because a server acknowledged it) must not.
    pub fn is_end_of_wal(&self) -> bool {
        matches!(
            self.kind,
            WalDecodeErrorKind::ZeroLength
                | WalDecodeErrorKind::EmptyPage
                | WalDecodeErrorKind::StalePage { .. }
        )
    }
}
