//! Which kinds of records are completely described by their block references.
//!
//! A record of an unlisted kind may do something that nobody here has thought of, so the lists are
//! explicit: what is not on them stops the timeline's ingest. Source: the headers `access/*xlog.h` of PostgreSQL 15
//! and the redo functions they belong to.

use postgres_formats::wal::rmgr;

/// Whether nothing of the record's effect is lost if only the pages that it references are changed
/// (none, if it references none). `info` is without the WAL machinery's bits.
pub(super) fn is_pages_only(rmid: u8, info: u8) -> bool {
    match rmid {
        rmgr::XLOG => is_ignorable_xlog(info),
        // Assignments serve hot standby, whose snapshots nobody takes here; invalidations serve
        // logical decoding.
        rmgr::XACT => {
            matches!(info & rmgr::xact::OPMASK, rmgr::xact::ASSIGNMENT | rmgr::xact::INVALIDATIONS)
        }
        // Locks and invalidations only concern running processes; the snapshot of running
        // transactions goes into the checkpoint state.
        rmgr::STANDBY => matches!(
            info,
            rmgr::standby::LOCK | rmgr::standby::RUNNING_XACTS | rmgr::standby::INVALIDATIONS
        ),
        // All eight codes of each are taken. TRUNCATE and NEW_CID serve logical decoding; REWRITE
        // writes files that only logical replication slots read, and those do not travel with a
        // base backup. Visibility map clears are added elsewhere.
        rmgr::HEAP | rmgr::HEAP2 => true,
        // REUSE_PAGE (0xD0) only makes standbys cancel queries, here as in GiST (0x20).
        rmgr::BTREE => info <= 0xE0,
        rmgr::HASH => info <= 0xC0,
        rmgr::GIN => (0x10..=0x90).contains(&info),
        // 0x70 does nothing but use up an LSN.
        rmgr::GIST => matches!(info, 0x00 | 0x10 | 0x20 | 0x30 | 0x60 | 0x70),
        rmgr::SPGIST => (0x10..=0x80).contains(&info),
        // The highest bit says that the page is initialised.
        rmgr::BRIN => info & 0x70 <= 0x50,
        rmgr::SEQ | rmgr::GENERIC => info == 0x00,
        // Only logical decoding reads messages.
        rmgr::LOGICALMSG => info == rmgr::logicalmsg::MESSAGE,
        _ => false,
    }
}

/// The kinds of XLOG records that change no page, file or directory. Some change the checkpoint
/// state, which `CheckpointState` sees to.
fn is_ignorable_xlog(info: u8) -> bool {
    matches!(
        info,
        rmgr::xlog::CHECKPOINT_SHUTDOWN
            | rmgr::xlog::CHECKPOINT_ONLINE
            | rmgr::xlog::NOOP
            | rmgr::xlog::NEXTOID
            | rmgr::xlog::SWITCH
            | rmgr::xlog::BACKUP_END
            | rmgr::xlog::RESTORE_POINT
            | rmgr::xlog::FPW_CHANGE
            | rmgr::xlog::END_OF_RECOVERY
            | rmgr::xlog::FPI_FOR_HINT
            | rmgr::xlog::FPI
            | rmgr::xlog::OVERWRITE_CONTRECORD
    )
}
