//! What the scenarios share: a repository with its page server, and computes on it whose files have
//! all been fetched, so that stock PostgreSQL runs on them without any library.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pageserver_client::{ClientTimeouts, PageClient};
use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, parse_relation_path};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, TimelineId};
use postgres_testing::{
    Cluster, account, bin_dir, give_to_account, redo_module, scratch_dir, text,
};
use postgres_wire::client::{ClientError, Connection, Row, Timeouts};
use tempfile::TempDir;

/// How long anything may take that should take a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a page server may take to stop when a test is over.
const CLEAN_STOP_MAX: Duration = Duration::from_secs(10);
/// The `lsn_timeout_seconds` of the repositories here.
pub const LSN_TIMEOUT_SECONDS: u64 = 2;

/// Waits until `condition` gives a value.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A repository in a scratch folder, and its page server while that runs.
pub struct Server {
    scratch: TempDir,
    process: Option<Child>,
}

impl Server {
    /// A repository whose branch `main` is a fresh cluster; the page server is not started.
    pub fn init() -> Server {
        let scratch = scratch_dir("zenith-ps-");
        let server = Server { scratch, process: None };
        let repo = server.repo();
        for folder in ["", "lib", "timelines", "refs/branches", "walredo"] {
            fs::create_dir_all(repo.join(folder)).unwrap();
        }
        redo_module(&repo.join("lib"));
        server.configure(1);
        server.give_away();
        let cluster = Cluster::init("");
        let output =
            server.command("init").arg("--pgdata").arg(cluster.data_dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        server
    }

    /// A repository with its page server running.
    pub fn start_new() -> Server {
        let mut server = Server::init();
        server.start();
        server
    }

    /// Writes `zenith.toml` with this format version.
    pub fn configure(&self, format_version: u32) {
        let content = format!(
            "format_version = {format_version}\npg_bin_dir = \"{}\"\n\
             listen = \"127.0.0.1:0\"\nlsn_timeout_seconds = {LSN_TIMEOUT_SECONDS}\n\
             [walredo]\nprocesses = 2\n",
            text(&bin_dir()),
        );
        fs::write(self.repo().join("zenith.toml"), content).unwrap();
    }

    fn give_away(&self) {
        let mut folders = vec![self.repo()];
        while let Some(path) = folders.pop() {
            give_to_account(&path);
            if path.is_dir() {
                folders.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
    }

    /// The repository's folder.
    pub fn repo(&self) -> PathBuf {
        self.scratch.path().join(".zenith")
    }

    /// The program with a task and the repository.
    pub fn command(&self, task: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pageserver"));
        command.arg(task).arg("--repo").arg(self.repo()).stdin(Stdio::null()).current_dir("/");
        if let Some((uid, gid)) = account() {
            command.args(["--run-as", &format!("{uid}:{gid}")]);
        }
        command
    }

    /// Starts the page server and waits until it serves.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut process = self.command("run").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let pid = process.id().to_string();
        wait_for("serving", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "the page server ended: {}", self.log());
            let file = fs::read_to_string(self.repo().join("pageserver.pid")).ok()?;
            (file.trim() == pid).then_some(())
        });
        self.process = Some(process);
    }

    /// Sends the page server a signal and returns its exit code, `None` if the signal ended it.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        let mut process = self.process.take().expect("a running page server");
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
        let status = wait_for("the page server's end", || process.try_wait().unwrap());
        status.code()
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("pageserver.log")
    }

    /// Waits until the log has `text`: it is written a moment after what it tells of.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    /// The page server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The connection strings that the page server has written down: Unix socket, TCP.
    pub fn connstrs(&self) -> [String; 2] {
        let file = fs::read_to_string(self.repo().join("pageserver.addr")).unwrap();
        let lines: Vec<_> = file.lines().map(str::to_owned).collect();
        lines.try_into().unwrap()
    }

    /// A connection for commands, over the Unix socket.
    pub fn connect(&self) -> Connection {
        let [unix, _] = self.connstrs();
        Connection::connect(&unix.parse().unwrap(), Timeouts::default()).unwrap()
    }

    /// Runs a command.
    pub fn try_command(&self, sql: &str) -> Result<Vec<Row>, ClientError> {
        self.connect().simple_query(sql)
    }

    /// Runs a command that gives one row.
    pub fn row(&self, sql: &str) -> Row {
        let mut rows = self.try_command(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(rows.len(), 1, "{sql}");
        rows.remove(0)
    }

    /// One value of a command's one row.
    pub fn value(&self, sql: &str, column: &str) -> String {
        self.row(sql).text(column).unwrap().to_owned()
    }

    /// The timeline of a branch.
    pub fn timeline(&self, branch: &str) -> TimelineId {
        let sql = format!("timeline_show {branch}");
        self.value(&sql, "timeline").parse().unwrap()
    }

    /// A page stream of a branch.
    pub fn pages(&self, branch: &str) -> PageClient {
        let [unix, _] = self.connstrs();
        PageClient::connect(&unix, self.timeline(branch), ClientTimeouts::default()).unwrap()
    }

    /// Waits until the page server has received `branch` up to `lsn` and can lose it no more.
    pub fn wait_flushed(&self, branch: &str, lsn: Lsn) {
        let sql = format!("timeline_show {branch}");
        wait_for(&format!("receiving up to {lsn}"), || {
            let flushed: Lsn = self.value(&sql, "flushed_lsn").parse().unwrap();
            (flushed >= lsn).then_some(())
        });
    }

    /// A compute on `branch` at `lsn` (its end if `None`), with every page fetched. Not started.
    pub fn compute(&self, branch: &str, lsn: Option<Lsn>, settings: &str) -> Cluster {
        let cluster = Cluster::empty();
        let data = cluster.data_dir();
        let end = || self.value(&format!("timeline_show {branch}"), "last_record_lsn");
        let base = lsn.map_or_else(end, |lsn| lsn.to_string());
        let mut connection = self.connect();
        let tar = connection.copy_out(&format!("basebackup {branch} {base}")).unwrap();
        let relations = unpack(tar, &data);
        let mut pages = self.pages(branch);
        for line in relations.lines() {
            let (path, bytes) = line.rsplit_once(' ').unwrap();
            materialise(&mut pages, &data, path, bytes.parse().unwrap(), base.parse().unwrap());
        }
        fs::write(data.join("pg_ident.conf"), "").unwrap();
        let hba = "local all all trust\nlocal replication all trust\n";
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        fs::write(data.join("postgresql.conf"), "").unwrap();
        cluster.configure(&format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n{settings}",
            text(cluster.dir()),
        ));
        give_tree(&data);
        cluster
    }

    /// Lets `branch` follow a running compute.
    pub fn follow(&self, branch: &str, cluster: &Cluster) {
        let connstr = format!("host={} user=postgres", text(cluster.dir()));
        self.row(&format!("callmemaybe {branch} '{connstr}'"));
    }

    /// Waits until the page server has all of a running compute's WAL.
    pub fn catch_up(&self, branch: &str, cluster: &Cluster) -> Lsn {
        let lsn = cluster.sql("select pg_current_wal_insert_lsn()").parse().unwrap();
        self.wait_flushed(branch, lsn);
        lsn
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Cleanly, so that its redo processes do not outlive it in a folder that is going away.
            let pid = Pid::from_raw(i32::try_from(process.id()).unwrap_or_default());
            let _ = kill(pid, Signal::SIGTERM);
            let deadline = Instant::now() + CLEAN_STOP_MAX;
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Gone already is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("page server log:\n{}", self.log());
        }
    }
}

fn give_tree(path: &Path) {
    give_to_account(path);
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_tree(&entry.unwrap().path()));
    }
}

/// Unpacks a base backup and returns its list of relations.
fn unpack(tar: impl Read, data: &Path) -> String {
    fs::create_dir(data).unwrap();
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).unwrap();
    let mut archive = tar::Archive::new(tar);
    archive.set_preserve_ownerships(false);
    let mut relations = None;
    let mut last = PathBuf::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        last = entry.path().unwrap().into_owned();
        if relations.is_none() {
            assert_eq!(last, Path::new("zenith.relations"), "the list comes first");
            let mut list = String::new();
            entry.read_to_string(&mut list).unwrap();
            relations = Some(list);
        } else {
            assert!(entry.unpack_in(data).unwrap());
        }
    }
    assert_eq!(last, Path::new("global/pg_control"), "pg_control comes last");
    relations.expect("a list of relations")
}

/// Fetches all pages of one relation file.
fn materialise(pages: &mut PageClient, data: &Path, path: &str, bytes: u64, lsn: Lsn) {
    let relation = parse_relation_path(path).unwrap();
    let mut file = File::create_new(data.join(path)).unwrap();
    let blocks = u32::try_from(bytes / BLCKSZ as u64).unwrap();
    let mut block = 0;
    while block < blocks {
        let count = u16::try_from((blocks - block).min(256)).unwrap();
        let first = BlockNumber(relation.segment * BLOCKS_PER_SEGMENT + block);
        let read = pages.get_pages(relation.tag, first, count, lsn).unwrap();
        file.write_all(&read).unwrap();
        block += u32::from(count);
    }
}
