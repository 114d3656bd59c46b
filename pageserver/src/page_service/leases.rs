//! Rows about leases.

use super::PageService;
use super::rows::unix_seconds;
use super::table::{Rows, text};
use crate::leases::Lease;

/// All leases.
pub(super) fn list(service: &PageService) -> Rows {
    service.repository.leases().list().iter().map(|lease| row(service, lease)).collect()
}

/// One of them.
pub(super) fn row(service: &PageService, lease: &Lease) -> Vec<Option<String>> {
    let lsns: Vec<String> = lease.lsns.iter().map(ToString::to_string).collect();
    vec![
        text(&lease.holder),
        text(&lease.name),
        text(lease.timeline),
        service.repository.branch_of(lease.timeline).and_then(|branch| text(branch.name)),
        text(lsns.join(" ")),
        text(lease.since),
        lease.lasts.and_then(|lasts| text(lasts.as_secs())),
        text(unix_seconds(lease.created)),
    ]
}
