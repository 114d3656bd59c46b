//! A cluster whose relations and SLRUs are stubs, and the library that fills them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lazyfiles_core::presence::{BootId, Map};
use lazyfiles_core::segment_file::{Object, SegmentFile};
use lazyfiles_core::{base, presence, settings};
use postgres_formats::slru::SlruKind;
use postgres_formats::{BLCKSZ, ForkNumber, Lsn};

use super::cluster::{Cluster, Server, postgres_program, succeed};
use super::page_server::PageServer;

/// A stopped cluster with some tables, and a page server for its pages. Made once per scenario.
pub struct Origin {
    dir: tempfile::TempDir,
    pub cluster: Cluster,
    library: PathBuf,
    pub base_lsn: Lsn,
}

impl Origin {
    /// `sql` makes the tables.
    pub fn new(sql: &[&str]) -> Origin {
        Origin::made_by(|cluster| {
            let server = cluster.start(&["fsync=off"], &[]);
            for sql in sql {
                server.psql(sql);
            }
            server.stop();
        })
    }

    /// `make` does what is to be done with the new cluster, and leaves it stopped.
    pub fn made_by(make: impl FnOnce(&Cluster)) -> Origin {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The account that PostgreSQL runs as may not be able to enter the build folder.
        let library = dir.path().join("liblazyfiles.so");
        fs::copy(built_library(), &library).unwrap();

        let cluster = Cluster::initdb(&dir.path().join("origin"));
        make(&cluster);
        let control = succeed(
            cluster.account.command(postgres_program("pg_controldata")).arg(&cluster.pgdata),
        );
        let checkpoint = "Latest checkpoint location:";
        let line = control.lines().find_map(|line| line.strip_prefix(checkpoint)).unwrap();
        // Just behind the shutdown checkpoint's record, or a little later: nothing follows it.
        let lsn: Lsn = line.trim().parse().unwrap();
        let base_lsn = lsn.checked_add(0x100).unwrap();
        Origin { dir, cluster, library, base_lsn }
    }

    pub fn page_server(&self) -> PageServer {
        PageServer::start(self.dir.path(), &self.cluster.pgdata)
    }

    /// A full copy of the cluster.
    pub fn plain(&self, name: &str) -> Cluster {
        self.cluster.copy_to(&self.dir.path().join(name))
    }

    /// A copy of the cluster whose relations and SLRUs are stubs.
    pub fn lazy(&self, name: &str) -> LazyCluster {
        let cluster = self.plain(name);
        let maps = cluster.folder.join("presence");
        fs::create_dir(&maps).unwrap();
        let mut files = Vec::new();
        let slrus = SlruKind::ALL.map(SlruKind::dir);
        for folder in ["base", "global"].iter().chain(&slrus) {
            list_files(&cluster.pgdata.join(folder), &mut files);
        }
        for path in files {
            let relative = path.strip_prefix(&cluster.pgdata).unwrap().to_str().unwrap();
            let Some(segment) = SegmentFile::parse(relative) else { continue };
            let size = fs::metadata(&path).unwrap().len();
            if matches!(segment.object, Object::Rel(rel) if rel.fork == ForkNumber::Init) {
                continue;
            }
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(0).unwrap();
            file.set_len(size).unwrap();
            let blocks = u32::try_from(size / BLCKSZ as u64).unwrap();
            presence::create(&maps.join(relative), blocks).unwrap();
        }
        let base_file = cluster.folder.join("base_lsn");
        fs::write(&base_file, base::encode(self.base_lsn)).unwrap();
        cluster.account.give(&base_file);
        cluster.account.give(&maps);
        let variables = [
            (settings::PAGESERVER, format!("host={} port=5432", self.dir.path().display())),
            (settings::TIMELINE, "00112233445566778899aabbccddeeff".to_owned()),
            (settings::BASE, base_file.display().to_string()),
            (settings::PGDATA, cluster.pgdata.display().to_string()),
            (settings::PRESENCE, maps.display().to_string()),
            (settings::TIMEOUT_SECONDS, "2".to_owned()),
            ("LD_PRELOAD", self.library.display().to_string()),
        ];
        let environment = variables.map(|(name, value)| (name.to_owned(), value)).into();
        LazyCluster { cluster, maps, base: base_file, environment }
    }
}

/// The library under test. Cargo does not build it for tests, which cannot link it.
fn built_library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        if let Some(folder) = std::env::var_os("ZENITH_BIN_DIR") {
            return PathBuf::from(folder).join("liblazyfiles.so");
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        succeed(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
        // The test itself is in `deps` below the same folder.
        let test = std::env::current_exe().unwrap();
        test.parent().unwrap().parent().unwrap().join("liblazyfiles.so")
    };
    BUILT.get_or_init(build).clone()
}

fn list_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            list_files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

pub struct LazyCluster {
    pub cluster: Cluster,
    pub maps: PathBuf,
    pub base: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl LazyCluster {
    /// Starts the server with hardly any buffers, so that pages come and go.
    pub fn start(&self, settings: &[&str]) -> Server {
        let settings = [&["shared_buffers=1MB", "log_checkpoints=off"], settings].concat();
        self.cluster.start(&settings, &self.environment)
    }

    /// A program that reads the data directory while no server runs.
    pub fn offline(&self, program: &str) -> Command {
        let mut command = self.cluster.account.command(postgres_program(program));
        command.arg("-D").arg(&self.cluster.pgdata).envs(self.environment.iter().cloned());
        command
    }

    /// Sizes of all relation files on disk, in bytes.
    pub fn bytes_on_disk(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let mut files = Vec::new();
        list_files(&self.cluster.pgdata.join("base"), &mut files);
        files.iter().map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
    }

    /// What a power loss may leave: maps start from their durable half, and blocks that it does not
    /// call present hold anything.
    pub fn lose_power(&self) -> u32 {
        let boot = BootId::current().unwrap();
        let mut files = Vec::new();
        let mut lost = 0;
        list_files(&self.maps, &mut files);
        for path in files {
            let relative = path.strip_prefix(&self.maps).unwrap();
            let map = Map::open(&path, boot).unwrap().unwrap();
            map.distrust_live();
            drop(map);
            let map = Map::open(&path, boot).unwrap().unwrap();
            let file = File::options().write(true).open(self.cluster.pgdata.join(relative));
            let Ok(file) = file else { continue };
            let blocks = file.metadata().unwrap().len() / BLCKSZ as u64;
            for block in 0..blocks as u32 {
                if !map.is_present(block) {
                    let offset = u64::from(block) * BLCKSZ as u64;
                    file.write_all_at(&[0xAA; BLCKSZ], offset).unwrap();
                    lost += 1;
                }
            }
        }
        lost
    }
}
