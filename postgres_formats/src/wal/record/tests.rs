//! Records put together from parts come apart into the same parts, and damaged ones never panic.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::Lsn;
use crate::wal::{ImageCompression, encode_record};

/// A block reference as bytes: its header and its data.
struct Part {
    header: Vec<u8>,
    data: Vec<u8>,
}

fn header(rmid: u8) -> RecordHeader {
    RecordHeader { tot_len: 0, xid: 7, prev: Lsn::new(8), info: 0, rmid, crc: 0 }
}

/// Block `id` of relation 1663/5/`rel`, or of the relation before it if that is `None`.
fn block(id: u8, rel: Option<u32>, flags: u8, image: Option<&[u8]>, data: &[u8]) -> Part {
    let mut head = vec![id, flags];
    if rel.is_none() {
        head[1] |= BKPBLOCK_SAME_REL;
    }
    if !data.is_empty() {
        head[1] |= BKPBLOCK_HAS_DATA;
    }
    head.extend((data.len() as u16).to_le_bytes());
    if let Some(image) = image {
        head[1] |= BKPBLOCK_HAS_IMAGE;
        head.extend(image);
    }
    if let Some(rel) = rel {
        for oid in [1663, 5, rel] {
            head.extend(u32::to_le_bytes(oid));
        }
    }
    head.extend(u32::to_le_bytes(100 + u32::from(id)));
    Part { header: head, data: data.to_vec() }
}

fn image_header(len: u16, hole_offset: u16, info: u8, hole_length: Option<u16>) -> Vec<u8> {
    let mut head = [len.to_le_bytes(), hole_offset.to_le_bytes()].concat();
    head.push(info);
    head.extend(hole_length.into_iter().flat_map(u16::to_le_bytes));
    head
}

fn record(parts: &[Part], extra: &[u8], main: &[u8]) -> Bytes {
    let mut body: Vec<u8> = parts.iter().flat_map(|part| part.header.clone()).collect();
    body.extend(extra);
    if !main.is_empty() {
        body.extend([ID_DATA_SHORT, main.len() as u8]);
    }
    body.extend(parts.iter().flat_map(|part| part.data.clone()));
    body.extend(main);
    encode_record(header(10), &body).into()
}

#[test]
fn every_part_is_found() {
    let mut with_image = block(
        2,
        None,
        BKPBLOCK_WILL_INIT | 2,
        Some(&image_header(192, 100, BKPIMAGE_HAS_HOLE | BKPIMAGE_APPLY, None)),
        b"three",
    );
    with_image.data.splice(0..0, vec![9; 192]);
    let mut compressed = block(
        32,
        Some(78),
        0,
        Some(&image_header(3, 50, BKPIMAGE_HAS_HOLE | BKPIMAGE_COMPRESS_LZ4, Some(4000))),
        b"",
    );
    compressed.data = vec![1, 2, 3];
    let parts = [block(0, Some(77), 0, None, b"one"), with_image, compressed];
    let extra = [&[ID_ORIGIN, 5, 1, ID_TOPLEVEL_XID][..], &900u32.to_le_bytes()].concat();
    let decoded = DecodedRecord::parse(&record(&parts, &extra, b"main")).unwrap();

    assert_eq!((decoded.origin, decoded.toplevel_xid), (Some(0x105), Some(900)));
    assert_eq!(&decoded.main_data[..], b"main");
    let [first, second, third] = &decoded.blocks[..] else { panic!("{decoded:?}") };
    assert_eq!((first.rel.to_string(), first.block), ("1663/5/77".into(), BlockNumber(100)));
    assert_eq!((&first.data[..], first.replaces_page()), (&b"one"[..], false));
    assert_eq!(second.rel.to_string(), "1663/5/77_vm");
    assert!(second.will_init && second.replaces_page());
    assert_eq!(&second.data[..], b"three");
    let image = second.image.as_ref().unwrap();
    assert!(image.apply);
    assert_eq!((image.hole_offset, image.hole_length), (100, 8000));
    assert_eq!(&image.data[..], [9; 192]);
    assert!(!third.replaces_page());
    let image = third.image.as_ref().unwrap();
    assert_eq!((image.hole_offset, image.hole_length), (50, 4000));
    assert_eq!((image.compression, &image.data[..]), (ImageCompression::Lz4, &[1, 2, 3][..]));
    assert_eq!(decoded.block(32).unwrap().block, BlockNumber(132));
}

#[test]
fn long_main_data_and_none() {
    let mut body = vec![ID_DATA_LONG];
    body.extend(1000u32.to_le_bytes());
    body.extend(vec![3; 1000]);
    let decoded = DecodedRecord::parse(&encode_record(header(0), &body).into()).unwrap();
    assert_eq!(decoded.main_data, vec![3; 1000]);
    let decoded = DecodedRecord::parse(&encode_record(header(0), &[]).into()).unwrap();
    assert!(decoded.main_data.is_empty() && decoded.blocks.is_empty());
}

#[test]
fn contradictions_are_refused() {
    use RecordParseError as E;
    let parse = |parts: &[Part], extra: &[u8]| {
        DecodedRecord::parse(&record(parts, extra, b"m")).unwrap_err()
    };
    let plain = |id| block(id, Some(77), 0, None, b"");
    assert_eq!(parse(&[plain(1), plain(1)], &[]), E::BlockOutOfOrder(1));
    assert_eq!(parse(&[], &[40]), E::UnknownId(40));
    let first_says_same = block(0, None, 0, None, b"");
    assert!(matches!(parse(&[first_says_same], &[]), E::InconsistentBlock { id: 0, .. }));
    let no_fork = block(0, Some(77), 4, None, b"");
    assert!(matches!(parse(&[no_fork], &[]), E::InconsistentBlock { .. }));
    let no_data = block(0, Some(77), BKPBLOCK_HAS_DATA, None, b"");
    assert!(matches!(parse(&[no_data], &[]), E::InconsistentBlock { .. }));
    for image in [
        image_header(100, 0, 0, None),
        image_header(8192, 5, 0, None),
        image_header(9000, 0, BKPIMAGE_COMPRESS_LZ4, None),
        image_header(100, 0, BKPIMAGE_HAS_HOLE, None),
        image_header(100, 200, BKPIMAGE_HAS_HOLE, None),
        image_header(100, 0, BKPIMAGE_COMPRESS_LZ4 | BKPIMAGE_COMPRESS_ZSTD, None),
        image_header(100, 5, BKPIMAGE_COMPRESS_LZ4 | BKPIMAGE_HAS_HOLE, Some(8190)),
    ] {
        let part = block(0, Some(77), 0, Some(&image), b"");
        assert!(matches!(parse(&[part], &[]), E::InconsistentBlock { .. }), "{image:?}");
    }
    let mut short = record(&[plain(0)], &[], b"main").to_vec();
    short.truncate(short.len() - 1);
    assert!(matches!(DecodedRecord::parse(&short.into()), Err(E::WrongLength { .. })));
    let missing = encode_record(header(0), &[ID_DATA_SHORT, 9, 1, 2]);
    assert_eq!(
        DecodedRecord::parse(&missing.into()).unwrap_err(),
        E::WrongDataLength { found: 2, expected: 9 }
    );
}

proptest! {
    #[test]
    fn damaged_records_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut with_image = block(
            1,
            None,
            0,
            Some(&image_header(192, 100, BKPIMAGE_HAS_HOLE | BKPIMAGE_APPLY, None)),
            b"data",
        );
        with_image.data.splice(0..0, vec![9; 192]);
        let parts = [block(0, Some(77), 0, None, b"one"), with_image];
        let mut bytes = record(&parts, &[ID_ORIGIN, 5, 1], b"main").to_vec();
        for (at, value) in damage {
            // Behind the fixed header, or the length does not agree and nothing is tested.
            let at = 24 + at.index(bytes.len() - 24);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(24 + cut.index(bytes.len() - 24));
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
        }
        if let Ok(decoded) = DecodedRecord::parse(&bytes.into()) {
            for block in decoded.blocks {
                if let Some(image) = block.image {
                    let _ = image.restore(Lsn::new(1));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn without_images_all_else_is_the_same(
        blocks in prop::collection::vec(
            (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..300),
            0..6,
        ),
        origin in any::<bool>(),
        toplevel in any::<bool>(),
        main in prop_oneof![Just(0_usize), 1_usize..300],
    ) {
        let parts: Vec<Part> = (0_u8..)
            .zip(blocks)
            .map(|(id, (new_rel, has_image, will_init, len))| {
                let rel = (id == 0 || new_rel).then_some(70 + u32::from(id));
                let flags = if will_init { BKPBLOCK_WILL_INIT } else { u8::from(id == 3) };
                let head = image_header(192, 100, BKPIMAGE_HAS_HOLE | BKPIMAGE_APPLY, None);
                let data = vec![id; len];
                let mut part = block(id, rel, flags, has_image.then_some(&head[..]), &data);
                part.data.splice(0..0, vec![9; if has_image { 192 } else { 0 }]);
                part
            })
            .collect();
        let extra = [
            if origin { vec![ID_ORIGIN, 5, 1] } else { Vec::new() },
            if toplevel { vec![ID_TOPLEVEL_XID, 1, 2, 3, 4] } else { Vec::new() },
        ];
        // The helper writes short lengths only.
        let main = vec![1; main.min(255)];
        let bytes = record(&parts, &extra.concat(), &main);
        let whole = DecodedRecord::parse(&bytes).unwrap();
        let stripped = Bytes::from(whole.without_images());
        prop_assert_eq!(crate::wal::record_crc(&stripped), Some(RecordHeader::decode(&stripped).unwrap().crc));
        let again = DecodedRecord::parse(&stripped).unwrap();
        prop_assert!(again.blocks.iter().all(|block| block.image.is_none()));
        let facts = |record: &DecodedRecord| {
            let of_block = |b: &BlockRef| (b.id, b.rel, b.block, b.will_init, b.data.clone());
            let blocks: Vec<_> = record.blocks.iter().map(of_block).collect();
            let header = (record.header.xid, record.header.prev, record.header.info, record.header.rmid);
            (header, blocks, record.main_data.clone(), record.origin, record.toplevel_xid)
        };
        prop_assert_eq!(facts(&again), facts(&whole));
        if whole.blocks.iter().all(|block| block.image.is_none()) {
            prop_assert_eq!(stripped, bytes);
        }
    }
}
