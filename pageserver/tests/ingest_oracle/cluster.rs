//! What these tests do with a PostgreSQL server besides running SQL in it.

use std::fs;

use postgres::{Client, NoTls};
use postgres_formats::slru::SLRU_PAGES_PER_SEGMENT;
use postgres_formats::{BLCKSZ, SlruKind};
use postgres_testing::{Cluster, give_to_account, text};

/// Enough WAL is kept that all of it can be read at the end.
const SETTINGS: &str = "\
autovacuum = off
wal_keep_size = 8GB
max_wal_size = 8GB
shared_buffers = 16MB
max_prepared_transactions = 10
autovacuum_freeze_max_age = 2000000000
";

/// A new cluster with these settings besides ours.
pub fn init(settings: &str) -> Cluster {
    init_with(&[], settings)
}

/// The same with further arguments for initdb.
pub fn init_with(args: &[&str], settings: &str) -> Cluster {
    Cluster::init_with(args, &format!("{SETTINGS}{settings}"))
}

pub trait ClusterExt {
    /// A session of its own.
    fn connect(&self, database: &str) -> Client;
    /// Runs each text by itself, in its own transaction unless it says otherwise.
    fn each(&self, database: &str, texts: &[&str]);
    /// Ends the server without a checkpoint.
    fn crash(&mut self);
    /// Sets the next transaction, multitransaction and member number of a stopped cluster, all of
    /// whose rows are frozen. A jump must be shorter than half the circle.
    fn reset_ids(&self, xid: u32, multi: u32, member: u32);
}

impl ClusterExt for Cluster {
    fn connect(&self, database: &str) -> Client {
        let host = text(self.dir());
        let params = format!("host={host} user=postgres dbname={database}");
        Client::connect(&params, NoTls).unwrap()
    }

    fn each(&self, database: &str, texts: &[&str]) {
        let mut client = self.connect(database);
        for sql in texts {
            client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}\n{}", self.log()));
        }
    }

    fn crash(&mut self) {
        let data = self.data_dir();
        self.run("pg_ctl", &["-w", "-s", "-m", "immediate", "-D", text(&data), "stop"]);
    }

    fn reset_ids(&self, xid: u32, multi: u32, member: u32) {
        // The oldest ids are the next ones, or the server would vacuum at once to remove what it
        // takes for two billion old ones.
        let xid_option = xid.to_string();
        let multi_option = format!("{multi},{multi}");
        let member_option = member.to_string();
        let data = self.data_dir();
        let options = [
            ["-x", &xid_option],
            ["-u", &xid_option],
            ["-m", &multi_option],
            ["-O", &member_option],
            ["-D", text(&data)],
        ];
        self.run("pg_resetwal", options.as_flattened());
        // The server wants the pages around the counters to be there.
        let entries = [
            (SlruKind::Clog, xid),
            (SlruKind::MultixactOffsets, multi),
            (SlruKind::MultixactMembers, member),
        ];
        for (kind, entry) in entries {
            let segment = kind.page_of(entry) / SLRU_PAGES_PER_SEGMENT;
            let path = data.join(kind.segment_path(segment));
            fs::write(&path, vec![0; SLRU_PAGES_PER_SEGMENT as usize * BLCKSZ]).unwrap();
            give_to_account(&path);
        }
    }
}
