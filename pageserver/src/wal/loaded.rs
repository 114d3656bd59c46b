//! Where the WAL of a root begins.

use std::io;

use postgres_formats::Lsn;

use super::store::WalStore;
use crate::cluster::Cluster;

/// Start of the checkpoint with which a cluster was loaded, if the WAL in `store` of a root had it: it is
/// the record at `prev_record`, the last one before the timeline's beginning. A branch that was detached has
/// no WAL before that, even if it is where the cluster's history begins; its first page has no header.
///
/// # Errors
/// Whatever reading gives.
pub(crate) fn loaded_checkpoint(
    store: &WalStore,
    cluster: &Cluster,
    prev_record: Lsn,
) -> io::Result<Option<Lsn>> {
    let checkpoint = cluster.control_file.check_point;
    let mut header = [0; 4];
    let got = store.read(checkpoint.page_start(), &mut header)?;
    let is_there = prev_record == checkpoint && got == header.len() && header != [0; 4];
    Ok(is_there.then_some(checkpoint))
}
