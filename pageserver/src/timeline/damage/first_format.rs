//! A timeline that begins with an image as the first releases wrote it.

use bytes::Bytes;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag};

use super::sample::Sample;
use crate::layer::image::{ImageLayerWriter, SmallFile};
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::timeline::{GetPageError, PageRequest};

const DB: DbTag = DbTag { spc: Oid(1663), db: Oid(77) };

#[test]
fn it_answers_as_it_did() {
    let mut sample = Sample::new(100_000);
    let object =
        ObjectTag::Rel(RelTag { spc: DB.spc, db: DB.db, rel: Oid(5), fork: ForkNumber::Main });
    let path = sample.dir.path().join("layers/image");
    let mut out = ImageLayerWriter::create(&path, sample.start).unwrap();
    out.begin_object(object);
    out.add_page(object, &[1; BLCKSZ]).unwrap();
    out.add_page(object, &[2; BLCKSZ]).unwrap();
    out.add_small_file(SmallFile::Database(DB), Bytes::new());
    out.add_small_file(SmallFile::RelMap(DB), Bytes::from("a map"));
    out.add_small_file(SmallFile::TwoPhase(9), Bytes::from("a state"));
    out.finish().unwrap();
    sample.write_page(7, 40);
    let timeline = sample.open();
    sample.give(&timeline);
    let ask = || {
        let page = |block, lsn: Lsn| {
            let page = ObjectPage { object, block: BlockNumber(block) };
            timeline.get_page(PageRequest { page, lsn }, std::time::Duration::ZERO)
        };
        for lsn in [sample.start, sample.end()] {
            assert_eq!(timeline.object_size(object, lsn).unwrap(), Some(2));
            assert!(timeline.list_objects(lsn).unwrap().contains_key(&object));
            assert_eq!(page(0, lsn).unwrap()[..], [1; BLCKSZ]);
            assert_eq!(page(1, lsn).unwrap()[..], [2; BLCKSZ]);
            assert!(matches!(page(2, lsn), Err(GetPageError::NotFound { .. })));
            assert_eq!(timeline.databases(lsn).unwrap(), [DB].into());
            assert_eq!(timeline.rel_map(DB, lsn).unwrap().unwrap()[..], *b"a map");
            assert_eq!(timeline.two_phase(lsn).unwrap()[&9][..], *b"a state");
        }
    };
    ask();
    // The same of an image above it.
    timeline.freeze().unwrap();
    let end = timeline.layer_files()[0].end;
    assert!(timeline.make_image(end).unwrap());
    ask();
}
