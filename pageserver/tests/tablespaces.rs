//! Loading a data directory whose tablespaces are elsewhere.

#![allow(clippy::unwrap_used)]

mod stock;

use std::fs::{self, DirEntry};
use std::io;

use pageserver::object::DbTag;
use pageserver::repository::Repository;
use pageserver::timeline::PageRequest;
use postgres_formats::relpath::{database_path, parse_relation_path};
use postgres_formats::{BlockNumber, Oid};
use postgres_testing::{Cluster, give_to_account, scratch_dir, text};
use stock::{TIMEOUT, open};

#[test]
fn a_data_directory_with_links() {
    let mut cluster = Cluster::init("");
    cluster.start();
    for name in ["used", "empty"] {
        let location = cluster.dir().join(name);
        fs::create_dir(&location).unwrap();
        give_to_account(&location);
        cluster.sql(&format!("create tablespace {name} location '{}'", text(&location)));
    }
    cluster.sql("create database home tablespace used");
    cluster.sql("create table t tablespace used as select generate_series(1, 10000) i");
    cluster.sql("create temp table gone (i int) tablespace used");
    let oid = |sql: &str| Oid(cluster.sql(sql).parse().unwrap());
    let used = oid("select oid from pg_tablespace where spcname = 'used'");
    let empty = oid("select oid from pg_tablespace where spcname = 'empty'");
    let home = oid("select oid from pg_database where datname = 'home'");
    let path = cluster.sql("select pg_relation_filepath('t')");
    cluster.stop();

    let dir = scratch_dir("zenith-tablespaces-");
    let main = "main".parse().unwrap();
    let id = Repository::init_from_pgdata(dir.path(), &cluster.data_dir(), &main).unwrap();
    let opened = open(dir, 1 << 20);
    let timeline = opened.repository.timeline(id).unwrap();
    let lsn = timeline.start_lsn();

    let location = |name: &str| cluster.dir().join(name).into_os_string().into_encoded_bytes();
    let found: Vec<_> = timeline.tablespaces(lsn).unwrap().into_iter().collect();
    assert_eq!(found, [(used, location("used").into()), (empty, location("empty").into())]);
    let databases = timeline.databases(lsn).unwrap();
    let in_used: Vec<_> = databases.iter().filter(|tag| tag.spc == used).collect();
    assert_eq!(in_used, [&DbTag { spc: used, db: Oid(5) }, &DbTag { spc: used, db: home }]);
    assert!(timeline.rel_map(DbTag { spc: used, db: home }, lsn).unwrap().is_some());
    assert!(timeline.rel_map(DbTag { spc: used, db: Oid(5) }, lsn).unwrap().is_none());

    let rel = parse_relation_path(&path).unwrap().tag;
    assert_eq!(rel.spc, used);
    let bytes = fs::read(cluster.data_dir().join(&path)).unwrap();
    assert_eq!(
        timeline.rel_size(rel, lsn).unwrap(),
        Some(BlockNumber((bytes.len() / 8192) as u32))
    );
    for (block, theirs) in (0..).zip(bytes.chunks(8192)) {
        let ours = timeline.get_page(PageRequest::rel(rel, BlockNumber(block), lsn), TIMEOUT);
        assert!(ours.unwrap()[..] == *theirs, "block {block}");
    }

    let home_files = cluster.data_dir().join(database_path(used, home));
    let length = |entry: io::Result<DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{}/{name}", database_path(used, home));
        parse_relation_path(&path).map_or(0, |_| entry.metadata().unwrap().len())
    };
    let expected: u64 = fs::read_dir(home_files).unwrap().map(length).sum();
    assert_eq!(timeline.database_size(home, lsn).unwrap(), expected);

    // A disk that is missing is no empty tablespace.
    fs::rename(cluster.dir().join("used"), cluster.dir().join("away")).unwrap();
    let dir = scratch_dir("zenith-tablespaces-");
    assert!(Repository::init_from_pgdata(dir.path(), &cluster.data_dir(), &main).is_err());
}
