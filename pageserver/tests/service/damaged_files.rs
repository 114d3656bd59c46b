//! One small file is damaged or gone: the page server starts, serves everything else, names it, and
//! uses it again when it has been put back.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use postgres_testing::give_to_account;

use crate::fixture::{Server, wait_for};

/// What may have happened to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    Missing,
    Empty,
    Truncated,
    Flipped,
    NewerFormat,
}

const ALL: [Damage; 5] =
    [Damage::Missing, Damage::Empty, Damage::Truncated, Damage::Flipped, Damage::NewerFormat];

/// A file that is damaged for as long as this lives.
struct Damaged {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Damaged {
    /// `at`: a byte of the file that matters; `version`: where a byte of its version is.
    fn new(path: &Path, damage: Damage, at: usize, version: Option<usize>) -> Option<Damaged> {
        let whole = fs::read(path).unwrap();
        let mut bytes = whole.clone();
        match damage {
            Damage::Missing => fs::remove_file(path).unwrap(),
            Damage::Empty => bytes.clear(),
            Damage::Truncated => bytes.truncate(at),
            Damage::Flipped => bytes[at] ^= 2,
            Damage::NewerFormat => *bytes.get_mut(version?).unwrap() = b'9',
        }
        if damage != Damage::Missing {
            fs::write(path, bytes).unwrap();
        }
        Some(Damaged { path: path.to_owned(), whole })
    }

    fn mend(self) {
        fs::write(&self.path, &self.whole).unwrap();
        give_to_account(&self.path);
    }
}

fn error(server: &Server, command: &str) -> String {
    server.try_command(command).unwrap_err().to_string()
}

fn problems(server: &Server) -> String {
    let row = server.row("status");
    row.text("problems").map(str::to_owned).unwrap_or_default()
}

/// `main`, `dev` and `other` made from it; `dev` has a writer that is followed.
fn start() -> Server {
    let server = Server::start_new();
    for name in ["dev", "other"] {
        let end = server.value("timeline_show main", "last_record_lsn");
        server.row(&format!("branch_create {name} main@{end}"));
    }
    server.row("writer_claim dev a1 dev 0");
    server.row("callmemaybe dev 'host=/nowhere' a1 1");
    server
}

fn timeline_dir(server: &Server, branch: &str) -> PathBuf {
    server.repo().join("timelines").join(server.timeline(branch).to_string())
}

#[test]
fn a_branch_whose_files_are_damaged_is_named_and_comes_back() {
    let mut server = start();
    let reference = server.repo().join("refs/branches/dev");
    let manifest = timeline_dir(&server, "dev").join("manifest");
    let version = "format_version = ".len();
    for (path, version) in [(&manifest, Some(version)), (&reference, None)] {
        for damage in ALL {
            server.end(Signal::SIGTERM);
            let Some(damaged) = Damaged::new(path, damage, 21, version) else {
                server.start();
                continue;
            };
            server.start();
            let what = format!("{damage:?} {}", path.display());
            let nameless = path == &reference && damage == Damage::Missing;
            let names = |text: &str| text.contains("refs/branches") || text.contains("manifest");
            assert!(names(&problems(&server)), "{what}: {}", problems(&server));
            let rows = server.try_command("branch_list").unwrap();
            let row = rows.iter().find(|row| row.text("name").unwrap() == "dev");
            if nameless {
                assert!(row.is_none());
                assert!(error(&server, "timeline_show dev").contains("there is no branch"));
            } else {
                let row = row.unwrap();
                assert_eq!(row.text("state").unwrap(), "damaged", "{what}");
                assert!(row.text("cause").unwrap().contains(path.to_str().unwrap()), "{what}");
                for command in ["timeline_show dev", "branch_create dev main", "basebackup dev"] {
                    let text = error(&server, command);
                    assert!(text.contains(path.to_str().unwrap()), "{what}: {command}: {text}");
                }
                assert!(error(&server, "branch_delete dev").contains("cannot be used"));
            }
            // Everything else goes on.
            server.row("timeline_show other");
            server.row(&format!("branch_create new other@{}", {
                server.value("timeline_show other", "last_record_lsn")
            }));
            let manifest_lost = path == &manifest || damage == Damage::Flipped;
            match server.try_command("branch_delete new") {
                // Where it is known that what cannot be used does not stand on it.
                Ok(_) => assert!(path == &reference, "{what}"),
                Err(refused) => {
                    assert!(manifest_lost, "{what}: {refused}");
                    assert!(refused.to_string().contains("dev"), "{what}: {refused}");
                }
            }
            assert!(manifest.parent().unwrap().join("wal").exists());

            damaged.mend();
            wait_for("using it again", || server.try_command("timeline_show dev").ok());
            let _ = server.try_command("branch_delete new");
            assert_eq!(server.try_command("branch_list").unwrap().len(), 3, "{what}");
            wait_for("nothing wrong", || problems(&server).is_empty().then_some(()));
        }
    }
}

#[test]
fn what_the_root_stands_on_is_named_and_comes_back() {
    let mut server = start();
    let dir = timeline_dir(&server, "main");
    let layer = fs::read_dir(dir.join("layers")).unwrap().next().unwrap().unwrap().path();
    for path in [dir.join("pg_control"), layer] {
        for damage in ALL {
            server.end(Signal::SIGTERM);
            let damaged = Damaged::new(&path, damage, 20, Some(8)).unwrap();
            server.start();
            let name = path.to_str().unwrap();
            for branch in ["main", "dev"] {
                let text = error(&server, &format!("timeline_show {branch}"));
                assert!(text.contains(name), "{damage:?}: {text}");
            }
            assert!(problems(&server).contains(name), "{damage:?}");
            for row in server.try_command("branch_list").unwrap() {
                assert_eq!(row.text("state").unwrap(), "damaged");
                assert!(row.text("cause").unwrap().contains(name), "{damage:?}");
            }
            damaged.mend();
            wait_for("nothing wrong", || problems(&server).is_empty().then_some(()));
            server.row("timeline_show dev");
        }
    }
}

#[test]
fn who_is_followed_and_who_writes_is_told_and_harms_no_reader() {
    let mut server = start();
    let dir = timeline_dir(&server, "dev");
    let version = "format_version = ".len();
    for name in ["follow.toml", "writer.toml", "wal/flushed"] {
        let path = dir.join(name);
        if name == "wal/flushed" {
            fs::write(&path, [7; 12]).unwrap();
            give_to_account(&path);
        }
        for damage in ALL {
            server.end(Signal::SIGTERM);
            // The mark has no version.
            let version = (name != "wal/flushed").then_some(version);
            let Some(damaged) = Damaged::new(&path, damage, 3, version) else { continue };
            server.start();
            server.row("timeline_show dev");
            server.row("timeline_show other");
            if damage != Damage::Missing && name != "wal/flushed" {
                let text = problems(&server);
                assert!(text.contains(path.to_str().unwrap()), "{damage:?}: {text}");
            }
            if name == "wal/flushed" && matches!(damage, Damage::Truncated | Damage::Flipped) {
                server.wait_for_log("flushed is damaged");
            }
            damaged.mend();
            if damage != Damage::Missing && name != "wal/flushed" {
                wait_for("nothing wrong", || problems(&server).is_empty().then_some(()));
                let row = server.row("compute_list");
                assert!(row.text("connstr").unwrap().contains("/nowhere"));
            }
        }
    }
}
