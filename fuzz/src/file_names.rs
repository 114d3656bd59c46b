//! Names of files and what people write on command lines: whatever is understood is written the same
//! way again, so that one thing never has two names.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use pageserver_client::point::parse_duration;
use pageserver_client::{BranchName, Point};
use postgres_formats::relpath::parse_relation_path;
use postgres_formats::slru::{parse_segment_file_name, segment_file_name};
use postgres_formats::timestamp::Timestamp;
use postgres_formats::{Lsn, TimelineId};

/// A name.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(file) = parse_relation_path(text) {
        assert_eq!(file.path(), text);
    }
    if let Some(segment) = parse_segment_file_name(text) {
        assert_eq!(segment_file_name(segment), text);
    }
    if let Ok(name) = text.parse::<BranchName>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains(['/', '\0', '\n']) && !text.starts_with('.'), "{text:?}");
    }
    means_the_same_when_printed::<Lsn>(text);
    means_the_same_when_printed::<TimelineId>(text);
    means_the_same_when_printed::<Timestamp>(text);
    means_the_same_when_printed::<Point>(text);
    let _ = parse_duration(text);
}

fn means_the_same_when_printed<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().unwrap(), value, "{text:?} is printed as {printed:?}");
    }
}

/// Names of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "base/5/16384_vm.12",
        "global/1262_fsm",
        "pg_tblspc/16400/PG_15_202209061/5/16401_init",
        "base/5/t3_16384",
        "0000",
        "00FF",
        "14078",
        "main",
        "feature-1.x",
        "main@0/16B3748",
        "main@2026-11-22T10:00:00Z",
        "main@-10m",
        "main@2026-11-22 10:00:00.123456+02:30",
        "FFFFFFFF/FFFFFFFF",
        "0123456789abcdef0123456789abcdef",
        "1h30m",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec()
}
