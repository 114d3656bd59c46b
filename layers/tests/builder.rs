//! What a builder refuses, and what it does when its sink fails.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{self, Write};

use layers::{BuildError, Builder, Compression, KeyRange, LayerKind, LayerSpec, Lsn, Options};
use support::*;

fn builder() -> Builder<Vec<u8>> {
    Builder::new(Vec::new(), delta(10..20), &Options::default()).unwrap()
}

/// A refused entry leaves no trace: the file goes on with others.
#[test]
fn refused_entries_are_not_in_the_file() {
    let mut builder = builder();
    builder.add(b"b", Lsn::new(15), 0, b"kept").unwrap();
    for (key, lsn) in [(b"b", 15), (b"b", 14), (b"a", 19)] {
        let error = builder.add(key, Lsn::new(lsn), 0, b"").unwrap_err();
        assert!(matches!(error, BuildError::Unsorted { lsn: at } if at == Lsn::new(lsn)));
    }
    for lsn in [0, 9, 20, u64::MAX] {
        let error = builder.add(b"c", Lsn::new(lsn), 0, b"").unwrap_err();
        assert!(matches!(error, BuildError::LsnOutOfRange { lsn: at } if at == Lsn::new(lsn)));
    }
    let error = builder.add(&[b'c'; 65], Lsn::new(10), 0, b"").unwrap_err();
    assert!(matches!(error, BuildError::TooLong { what: "key", bytes: 65, bytes_max: 64 }));
    builder.add(&[b'c'; 64], Lsn::new(10), 0, b"kept").unwrap();
    assert_eq!(builder.last_key(), Some(&[b'c'; 64][..]));
    let (summary, file) = builder.finish(KeyRange::ALL).unwrap();
    assert_eq!(summary.entry_count, 2);
    let found = scan(&open(&file).unwrap(), KeyRange::ALL).unwrap();
    assert_eq!(found.iter().map(|entry| &entry.value[..]).collect::<Vec<_>>(), [b"kept"; 2]);
}

#[test]
fn the_range_of_keys_includes_all_keys() {
    let bounds = |start: &[u8], end: &[u8]| KeyRange::new(start, end);
    for keys in [bounds(b"", b"c"), bounds(b"b\0", b"d"), bounds(b"", b"")] {
        let mut builder = builder();
        builder.add(b"b", Lsn::new(10), 0, b"").unwrap();
        builder.add(b"c", Lsn::new(10), 0, b"").unwrap();
        assert!(matches!(builder.finish(keys), Err(BuildError::KeysOutOfRange)));
    }
    let mut narrow = builder();
    narrow.add(b"b", Lsn::new(10), 0, b"").unwrap();
    narrow.add(&[b'c'; 64], Lsn::new(10), 0, b"").unwrap();
    let after_all = [&[b'c'; 64][..], &[0]].concat();
    let (summary, file) = narrow.finish(KeyRange::new(b"b", after_all.clone())).unwrap();
    assert_eq!(summary.keys, KeyRange::new(b"b", after_all));
    let reader = open(&file).unwrap();
    assert_eq!(reader.keys(), &summary.keys);
    reader.verify().unwrap();

    let too_long = KeyRange { start: Vec::new(), end: Some(vec![b'z'; 66]) };
    let error = builder().finish(too_long).unwrap_err();
    assert!(matches!(error, BuildError::TooLong { what: "bound", bytes: 66, bytes_max: 65 }));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |spec: LayerSpec, options: &Options| {
        matches!(Builder::new(Vec::new(), spec, options), Err(BuildError::Unusable(_)))
    };
    let good = Options::default();
    assert!(refused(delta(10..10), &good));
    assert!(refused(LayerSpec { kind: LayerKind::Image, ..delta(10..12) }, &good));
    assert!(refused(delta(1..2), &options(Compression::None, 255)));
    assert!(refused(delta(1..2), &options(Compression::None, (1 << 20) + 1)));
    assert!(!refused(image(10), &good));
}

/// Takes so many bytes and then fails.
struct Limited {
    left: usize,
    taken: Vec<u8>,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.left);
        if length == 0 && !bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.left -= length;
        self.taken.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Wherever the sink fails, there is an error and never a file; and after it nothing is written.
#[test]
fn a_sink_that_fails_gives_no_file() {
    let model: Model =
        (0..40_u8).map(|n| ((vec![n], 10), (0, noise(n.into(), 20 * n as usize)))).collect();
    let whole = build(delta(10..20), &options(Compression::None, 256), &model);
    for left in (0..whole.len()).step_by(7) {
        let mut sink = Limited { left, taken: Vec::new() };
        let error = (|| {
            let options = options(Compression::None, 256);
            let mut builder = Builder::new(&mut sink, delta(10..20), &options)?;
            let mut failed = None;
            for ((key, lsn), (kind, value)) in &model {
                match (builder.add(key, Lsn::new(*lsn), *kind, value), &failed) {
                    (Ok(()), None) => {}
                    (Err(error), None) => failed = Some(error),
                    (Err(BuildError::Failed), Some(_)) => {}
                    (other, Some(_)) => panic!("after a failure: {other:?}"),
                }
            }
            match (failed, builder.finish(KeyRange::ALL)) {
                (Some(first), Err(BuildError::Failed)) => Err::<(), BuildError>(first),
                (None, Err(error)) => Err(error),
                (_, other) => panic!("{:?}", other.map(|_| ())),
            }
        })()
        .unwrap_err();
        assert!(matches!(error, BuildError::Io { .. }), "{error:?}");
        assert!(open(&sink.taken).is_err());
        assert_eq!(sink.taken, whole[..left]);
    }
}

/// For cutting files by size.
#[test]
fn bytes_written_is_what_the_sink_got() {
    let mut builder =
        Builder::new(Vec::new(), delta(10..20), &options(Compression::None, 256)).unwrap();
    assert_eq!(builder.bytes_written(), 80);
    let mut last = 80;
    for n in 0..100_u8 {
        builder.add(&[n], Lsn::new(10), 0, &[n; 100]).unwrap();
        let written = builder.bytes_written();
        // At most a block behind.
        let content = 100 * (u64::from(n) + 1);
        assert!(written >= last && written + 272 >= content, "{written} for {content}");
        last = written;
    }
    let (summary, file) = builder.finish(KeyRange::ALL).unwrap();
    assert_eq!(summary.file_bytes, file.len() as u64);
}
