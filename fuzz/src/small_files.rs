//! Files that are read whole: `pg_control`, presence maps, image layers, manifests, configuration.

use std::fs;
use std::path::Path;

use lazyfiles::presence::{self, BootId, Map};
use pageserver::layer::image::{ImageLayer, ImageLayerWriter};
use pageserver::object::ObjectTag;
use pageserver::timeline::manifest::Manifest;
use postgres_formats::control_file::ControlFile;
use postgres_formats::slru::SlruKind;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag, SystemId};

/// Size in bytes of the part of `pg_control` that has its checksum at the end (`ControlFileData`).
const CONTROL_DATA_BYTES: usize = 288;

/// Which kind of file, then its bytes.
pub fn run(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind % 4 {
        0 => control_file(bytes),
        1 => in_a_folder(bytes, presence_map),
        2 => in_a_folder(bytes, image_layer),
        _ => in_a_folder(bytes, manifest),
    }
}

fn in_a_folder(bytes: &[u8], read: fn(&Path)) {
    let dir = tempfile::tempdir().expect("the temporary folder can be used");
    let path = dir.path().join("manifest");
    fs::write(&path, bytes).unwrap();
    read(&path);
}

/// As it is, and with its checksum made right.
fn control_file(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for _ in 0..2 {
        if let Ok(control) = ControlFile::decode(&bytes) {
            let again = control.encode();
            assert_eq!(ControlFile::decode(&again).unwrap().encode(), again);
        }
        if let Some((data, rest)) = bytes.split_at_mut_checked(CONTROL_DATA_BYTES) {
            let checksum = crc32c::crc32c(data).to_le_bytes();
            rest.iter_mut().zip(checksum).for_each(|(to, from)| *to = from);
        }
    }
}

fn presence_map(path: &Path) {
    let Ok(Some(map)) = Map::open(path, BootId::current().unwrap()) else { return };
    let nblocks = map.nblocks();
    let absent = map.first_absent_run(0..nblocks);
    assert!(absent.start <= absent.end && absent.end <= nblocks);
    assert!(absent.clone().take(100).all(|block| !map.is_present(block)));
    assert!(map.is_present(map.limit()), "beyond the limit all blocks count as present");
    map.mark_present(0..nblocks);
    assert!(map.first_absent_run(0..nblocks).is_empty());
    if let Some(snapshot) = map.undurable() {
        map.persist(&snapshot).unwrap();
    }
}

fn image_layer(path: &Path) {
    let Ok(layer) = ImageLayer::open(path) else { return };
    let objects = layer.objects().collect::<Vec<_>>();
    for (object, size) in objects {
        for block in (0..size).take(64) {
            let _ = layer.page(object, BlockNumber(block));
        }
    }
    assert!(layer.small_files().count() < 1_000_000);
}

fn manifest(path: &Path) {
    let folder = path.parent().unwrap();
    if let Ok(manifest) = Manifest::read(folder) {
        manifest.write(folder).unwrap();
        assert_eq!(Manifest::read(folder).unwrap(), manifest);
    }
}

/// A good file of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let written = |kind: u8, name: &str| {
        let mut seed = vec![kind];
        seed.extend_from_slice(&fs::read(dir.path().join(name)).unwrap());
        seed
    };
    let mut control = vec![0];
    control.extend_from_slice(&ControlFile::for_new_cluster(SystemId(7)).encode()[..512]);

    presence::create(&dir.path().join("map"), 100).unwrap();
    let map = written(1, "map");

    let rel = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(1259), fork: ForkNumber::Main };
    let mut layer = ImageLayerWriter::create(&dir.path().join("layer"), Lsn::new(0x0100_0028))
        .expect("a new file");
    for object in [ObjectTag::Rel(rel), ObjectTag::Slru { kind: SlruKind::Clog, segment: 0 }] {
        layer.begin_object(object);
        layer.add_page(object, &[0; BLCKSZ]).unwrap();
    }
    layer.finish().unwrap();
    let layer = written(2, "layer");

    let manifest = "format_version = 1\nid = \"0123456789abcdef0123456789abcdef\"\n\
                    image_layer = \"image__0000000001000028\"\nstart_lsn = \"0/1000028\"\n\
                    prev_record = \"0/1000000\"\ncheckpoint = \"00\"\ncreated = 1\ncrc32c = 1\n";
    let mut text = vec![3];
    text.extend_from_slice(manifest.as_bytes());
    vec![control, map, layer, text]
}
