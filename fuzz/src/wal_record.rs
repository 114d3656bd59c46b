//! What a record says: anything that has a right checksum but was not written by PostgreSQL as we
//! know it must be refused, never believed or tripped over.
//!
//! Bytes are given a right header and checksum, and go the way of every record that a page server
//! receives: parsed, turned into changes, observed for the checkpoint state; images are restored and
//! changes of our own are applied to pages.

use bytes::Bytes;
use pageserver::ingest::{self, Change};
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::wal::{DecodedRecord, RecordHeader, WalRecord, encode_record, rmgr};
use postgres_formats::{Lsn, PageImage};

/// Changes of one record that are applied to pages. A few are as good as all.
const APPLIED_MAX: usize = 64;

/// Resource manager, info, transaction (four bytes), then the body.
pub fn run(input: &[u8]) {
    let Some((&[rmid, info, a, b, c, d], body)) = input.split_first_chunk() else { return };
    let header = RecordHeader {
        tot_len: 0,
        xid: u32::from_le_bytes([a, b, c, d]),
        prev: Lsn::new(0x0100_0000),
        info,
        rmid,
        crc: 0,
    };
    let bytes = Bytes::from(encode_record(header, body));
    let start = Lsn::new(0x0100_0028);
    let end = start.saturating_add(bytes.len() as u64).align_up();
    let record = WalRecord { start, end, bytes };
    let Ok(decoded) = DecodedRecord::parse(&record.bytes) else { return };
    for block in &decoded.blocks {
        if let Some(Ok(page)) = block.image.as_ref().map(|image| image.restore(end)) {
            assert!(page.is_new() || page.lsn() == end, "a restored page has another LSN");
        }
    }
    let mut state = CheckpointState::default();
    let _ = state.observe(&decoded, &record);
    assert_eq!(state.prev_record, start);
    let Ok(changes) = ingest::changes_of(&record, &decoded, Default::default()) else { return };
    let native = changes.list.iter().filter_map(|change| match change {
        Change::NativePage { key, .. } => Some(key),
        _ => None,
    });
    for key in native.take(APPLIED_MAX) {
        for mut page in [PageImage::zeroed(), noise(body)] {
            if ingest::native::apply(&record, &decoded, key, &mut page).is_ok() {
                let once = page.clone();
                let twice = ingest::native::apply(&record, &decoded, key, &mut page);
                assert!(twice.is_ok() && page == once, "{key}: applied twice is not as once");
            }
        }
    }
}

/// A page of whatever there is.
fn noise(bytes: &[u8]) -> PageImage {
    let mut page = PageImage::zeroed();
    for (to, from) in page.iter_mut().zip(bytes.iter().cycle()) {
        *to = *from;
    }
    page
}

/// The body of a record that references no page and has this main data.
pub(crate) fn body_of_main_data(data: &[u8]) -> Vec<u8> {
    let mut body = match u8::try_from(data.len()) {
        Ok(length) => vec![255, length],
        Err(_) => {
            let mut long = vec![254];
            long.extend_from_slice(&(data.len() as u32).to_le_bytes());
            long
        }
    };
    body.extend_from_slice(data);
    body
}

/// A record of each kind that has content of its own, with plausible numbers in it; and one with a
/// page reference for each access method.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let numbers: Vec<u8> = (0_u32..64).flat_map(|n| (n % 7 + 1).to_le_bytes()).collect();
    for rmid in (0..=rmgr::LOGICALMSG).chain([128, 255]) {
        for info in (0..=0xF_u8).map(|high| high << 4) {
            for length in [4, 8, 12, 16, 24, 40, 88, 200] {
                let mut seed = vec![rmid, info, 9, 0, 0, 0];
                seed.extend_from_slice(&body_of_main_data(&numbers[..length]));
                seeds.push(seed);
            }
            let mut seed = vec![rmid, info, 9, 0, 0, 0];
            seed.extend_from_slice(&body_of_a_page(&numbers[..24]));
            seeds.push(seed);
        }
    }
    seeds
}

/// The body of a record that references block 3 of a relation, with a page image for every second
/// length of `data`.
fn body_of_a_page(data: &[u8]) -> Vec<u8> {
    // Block id 0, main fork with data.
    let mut body = vec![0, 0x20];
    body.extend_from_slice(&(data.len() as u16).to_le_bytes());
    for number in [1663_u32, 5, 16_384, 3] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&[255, data.len() as u8]);
    body.extend_from_slice(data);
    body.extend_from_slice(data);
    body
}
