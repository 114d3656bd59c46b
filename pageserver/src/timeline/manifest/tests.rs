#![allow(clippy::unwrap_used)]

use durable_files::Fact;
use postgres_formats::checkpoint::CheckPoint;

use super::*;

/// As release 0.1 wrote it.
const FORMAT_1: &str = "\
format_version = 1
id = \"00112233445566778899aabbccddeeff\"
ancestor = \"ffeeddccbbaa99887766554433221100\"
ancestor_lsn = \"0/16B3748\"
start_lsn = \"0/16B3748\"
prev_record = \"0/16B3710\"
checkpoint = \"CHECKPOINT\"
created = 1700000000
crc32c = CRC
";

fn format_1() -> String {
    let state = CheckPoint { next_oid: postgres_formats::Oid(24576), ..Default::default() };
    let checkpoint = hex::encode(state.encode());
    // The fields as that release brought them together for the checksum.
    let fields = format!(
        "((1, \"00112233445566778899aabbccddeeff\", \
             Some(\"ffeeddccbbaa99887766554433221100\"), Some(\"0/16B3748\")), \
             (None, \"0/16B3748\", \"0/16B3710\", \"{checkpoint}\", 1700000000))"
    );
    let crc = crc32c::crc32c(fields.as_bytes()).to_string();
    FORMAT_1.replace("CHECKPOINT", &checkpoint).replace("CRC", &crc)
}

#[test]
fn the_first_format_is_read() {
    let manifest = Text::parse_unframed(&format_1()).unwrap().manifest().unwrap();
    assert!(!manifest.state_is_complete);
    assert_eq!(manifest.state.checkpoint.next_oid, postgres_formats::Oid(24576));
    assert_eq!(manifest.start, Lsn::new(0x16B3748));
}

#[test]
fn kept_files_of_each_format_are_read() {
    let first = "image__00000000016B3748";
    let pieces = ["image__00000000016B4000__-20", "image__00000000016B4000__20-"];
    for (sample, images) in [
        (include_str!("samples/manifest_4.toml"), vec![first]),
        (include_str!("samples/manifest_5.toml"), [&[first], &pieces[..]].concat()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), sample).unwrap();
        let manifest = Manifest::read(dir.path()).unwrap();
        assert_eq!((manifest.origin, manifest.detaching), (Origin::OwnImage, false));
        assert_eq!(manifest.layered.images, images);
        assert_eq!(manifest.layered.end, Lsn::new(0x16B4000));
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), include_str!("samples/manifest_6.toml")).unwrap();
    let manifest = Manifest::read(dir.path()).unwrap();
    assert!(manifest.origin.ancestor().is_some() && manifest.detaching);
    let range = Needed { from: Lsn::new(0x16B3900), to: Lsn::new(0x16B3A00) };
    let retained = Retained {
        horizon: Lsn::new(0x16B3F00),
        points: vec![Lsn::new(0x16B3800)],
        ranges: vec![range],
    };
    assert_eq!(manifest.layered.retained, retained);
}

#[test]
fn parameters_are_kept_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = Text::parse_unframed(&format_1()).unwrap().manifest().unwrap();
    manifest.state.parameters.max_connections = 77;
    manifest.state.parameters.track_commit_timestamp = true;
    manifest.state_is_complete = true;
    manifest.layered = Layered::nothing(manifest.start, manifest.state);
    manifest.write(dir.path()).unwrap();
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    manifest.origin = Origin::OwnImage;
    manifest.layered.images = vec!["image__1".to_owned()];
    manifest.write(dir.path()).unwrap();
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    manifest.layered.deltas = vec!["delta__1".to_owned(), "delta__2".to_owned()];
    manifest.layered.end = Lsn::new(0x16B4000);
    manifest.layered.retained = Retained {
        horizon: Lsn::new(0x16B3F00),
        points: vec![Lsn::new(0x16B3800)],
        ranges: vec![Needed { from: Lsn::new(0x16B3900), to: Lsn::MAX }],
    };
    manifest.layered.state.prev_record = Lsn::new(0x16B3F00);
    manifest.write(dir.path()).unwrap();
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    // All of its layers are gone, and where they ended is not forgotten.
    manifest.origin = Origin::ImageLayer("image".to_owned());
    manifest.layered.deltas.clear();
    manifest.layered.images.clear();
    manifest.write(dir.path()).unwrap();
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);

    let path = dir.path().join(FILE_NAME);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("parameters = \"4d", "parameters = \"4e")).unwrap();
    assert!(matches!(Manifest::read(dir.path()), Err(ManifestError::Corrupt { .. })));
}
