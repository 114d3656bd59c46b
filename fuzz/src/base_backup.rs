//! The reader of base backups: an archive that is laid out as a compute's data directory.
//!
//! Nothing is written outside the folders that it is given, whatever paths the archive names, and no
//! file becomes longer than a relation's segment or the archive itself.

use std::fs;
use std::path::Path;

/// Longest file that a stub may become, in bytes.
const SEGMENT_BYTES: u64 = 1 << 30;

/// A tar archive.
pub fn run(input: &[u8]) {
    let dir = tempfile::tempdir().expect("the temporary folder can be used");
    let inner = dir.path().join("one").join("two");
    let (pgdata, presence) = (inner.join("pgdata"), inner.join("presence"));
    fs::create_dir_all(&pgdata).unwrap();
    fs::create_dir_all(&presence).unwrap();
    let result = control_plane::unpack_base_backup(input, &pgdata, &presence);
    assert_eq!(names(dir.path()), ["one"], "something was written outside");
    assert_eq!(names(&dir.path().join("one")), ["two"], "something was written outside");
    assert_eq!(names(&inner), ["pgdata", "presence"], "something was written outside");
    assert_lengths(&pgdata);
    if result.is_ok() {
        assert!(pgdata.join("global/pg_control").is_file(), "laid out without a control file");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_lengths(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        assert!(!metadata.is_symlink(), "{} leads elsewhere", entry.path().display());
        if metadata.is_dir() {
            assert_lengths(&entry.path());
        } else {
            assert!(metadata.len() <= SEGMENT_BYTES, "{} is too long", entry.path().display());
        }
    }
}

/// A small base backup, with a symbolic link as a tablespace has one.
pub fn seeds() -> Vec<Vec<u8>> {
    let list = b"base/5/1259 81920\nbase/5/1259_vm 8192\nglobal/1262 0\n";
    let files: [(&str, &[u8]); 6] = [
        ("zenith.relations", list),
        ("zenith.pages/base/5/1259/3", &[7; 8192]),
        ("PG_VERSION", b"15\n"),
        ("base/5/PG_VERSION", b"15\n"),
        ("pg_wal/000000010000000000000001", &[1; 600]),
        ("global/pg_control", &[7; 512]),
    ];
    let mut plain = tar::Builder::new(Vec::new());
    let mut linked = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    linked.append_link(&mut link, "pg_tblspc/16384", "/tmp/elsewhere").unwrap();
    for (path, bytes) in files {
        for archive in [&mut plain, &mut linked] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, path, bytes).unwrap();
        }
    }
    vec![plain.into_inner().unwrap(), linked.into_inner().unwrap()]
}
