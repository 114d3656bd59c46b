//! The two sides of the protocol are written down with the same numbers.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use walredo_pool::{limits, protocol};

#[test]
fn header_and_rust_agree() {
    let header =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/module/walredo_protocol.h"))
            .unwrap();
    let in_header: BTreeMap<&str, usize> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define WALREDO_"))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();

    let number = |n: u32| usize::try_from(n).unwrap();
    let in_rust = BTreeMap::from([
        ("PROTOCOL_VERSION", number(protocol::PROTOCOL_VERSION)),
        ("HEADER_SIZE", protocol::HEADER_SIZE),
        ("ALIGNMENT", protocol::ALIGNMENT),
        ("BEGIN", number(protocol::BEGIN)),
        ("RECORD", number(protocol::RECORD)),
        ("FINISH", number(protocol::FINISH)),
        ("MASK", number(protocol::MASK)),
        ("HELLO", number(protocol::HELLO)),
        ("PAGE", number(protocol::PAGE)),
        ("ERROR", number(protocol::ERROR)),
        ("BEGIN_HAS_BASE", number(protocol::BEGIN_HAS_BASE)),
        ("BEGIN_VERIFY", number(protocol::BEGIN_VERIFY)),
        ("MASK_PAGE_HEADER", number(protocol::MASK_PAGE_HEADER)),
        ("BEGIN_SIZE", protocol::BEGIN_SIZE),
        ("RECORD_SIZE", protocol::RECORD_SIZE),
        ("MASK_SIZE", protocol::MASK_SIZE),
        ("HELLO_SIZE", protocol::HELLO_SIZE),
        ("PAGE_SIZE", protocol::PAGE_SIZE),
        ("ERROR_SIZE", protocol::ERROR_SIZE),
        ("CUSTOM_MIN", usize::from(protocol::CUSTOM_MIN)),
        ("RECORD_BYTES_MAX", limits::RECORD_BYTES_MAX),
    ]);
    assert_eq!(in_header, in_rust);
}
