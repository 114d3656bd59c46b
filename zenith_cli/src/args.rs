//! The command line. It is a stable contract: names and meanings do not change.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use control_plane::{Durability, Point, RetentionSpec, parse_duration};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, Oid, RelFileLocator};

use crate::output::Format;

/// Branches and time travel for stock PostgreSQL.
///
/// POINT is BRANCH, which means its end, BRANCH@LSN as in main@0/16B3748, or a TAG.
#[derive(Parser, Debug)]
#[command(name = "zenith", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 the check found a difference.")]
pub struct Arguments {
    /// The repository, or the folder that has it [default: ZENITH_DIR, else .zenith here or above]
    #[arg(long, global = true, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// How data is printed on stdout
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a repository with a fresh database in this folder, or in the one that --repo names
    Init(InitArguments),
    /// Start the page server
    Start(StartArguments),
    /// Stop the page server
    Stop(StopArguments),
    /// Stop the page server and start it again
    Restart(StopArguments),
    /// Tell whether the page server runs, and how it does
    Status,
    /// List branches as a tree, create, delete or rename one, or say how long it is kept
    Branch(BranchArguments),
    /// Put the history of a branch into layers, so that the page server starts without reading its WAL
    Checkpoint(CheckpointArguments),
    /// Put the history of a branch into few layers, with an image of all there is at its end
    ///
    /// The page server does that by itself when it is due. Nothing of the history is lost.
    Compact(CompactArguments),
    /// Remove layers of a branch that nobody needs: see [retention] in zenith.toml
    ///
    /// What branches, tags and computes stand on is kept. Without a window of retention everything is.
    Gc(GcArguments),
    /// List tags, which are names for points; create one, or delete one
    Tag(TagArguments),
    /// Make, start, stop and look at computes: PostgreSQL servers on a branch
    #[command(subcommand)]
    Pg(PgCommand),
    /// Run psql on a throw-away compute at a point; what it changes is gone afterwards
    Psql(PsqlArguments),
    /// Print a page of a relation at a point, as the page server has it
    Page(PageArguments),
    /// Compare every page at a point with what stock PostgreSQL makes of the same WAL
    ///
    /// From the beginning of history if all WAL is kept ([wal] keep = true in zenith.toml); else from where the
    /// WAL begins that is kept, and what the page server has there is believed. Or, with an option, do
    /// another check of the same things.
    Verify(VerifyArguments),
}

#[derive(Args, Debug)]
pub struct InitArguments {
    /// Folder of PostgreSQL's programs [default: ZENITH_PG_BIN, else found]
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct StartArguments {
    /// Serve on this port, now and later [default: the same as before, at first any free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

#[derive(Args, Debug)]
pub struct StopArguments {
    /// Do not wait for a clean end
    #[arg(long)]
    pub immediate: bool,
}

#[derive(Args, Debug)]
pub struct BranchArguments {
    /// Create a branch with this name
    pub name: Option<String>,
    /// Where it begins [default: the end of the default branch]
    pub point: Option<Point>,
    /// Delete a branch
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["name", "rename"])]
    pub delete: Option<String>,
    /// Let the branches that were made from the deleted one keep its history
    #[arg(long, requires = "delete", conflicts_with = "name")]
    pub reparent: bool,
    /// Let nobody delete a branch, nor let it expire
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "rename", "delete"])]
    pub protect: Option<String>,
    /// Let a branch be deleted again
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "rename", "delete", "protect"])]
    pub unprotect: Option<String>,
    /// Let branch NAME, or the one that is created at POINT, be deleted by itself after this time
    /// (units s, m, h, d), or never
    #[arg(long, value_name = "TIME", requires = "name")]
    pub expires_in: Option<Lifetime>,
    /// Keep so much of the history of branch NAME: what happened in a time (7d), an amount of WAL (10GB), what is
    /// in both (7d,10GB), all (unlimited), or what zenith.toml says (default)
    #[arg(long, value_name = "SPEC", requires = "name", conflicts_with = "point")]
    pub retention: Option<RetentionSpec>,
    /// Let a branch need no longer what it was made from, which can be deleted then: what it needs of that
    /// is copied in the background. What was before it is no longer part of it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "rename", "delete", "protect", "unprotect"])]
    pub detach: Option<String>,
    /// End when that is done
    #[arg(long, requires = "detach", conflicts_with = "name")]
    pub wait: bool,
    /// Rename a branch
    #[arg(short = 'm', long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "name")]
    pub rename: Option<Vec<String>>,
}

#[derive(Args, Debug)]
pub struct CheckpointArguments {
    /// Which branch [default: the default branch]
    pub branch: Option<String>,
}

#[derive(Args, Debug)]
pub struct CompactArguments {
    /// Which branch [default: the default branch]
    pub branch: Option<String>,
}

#[derive(Args, Debug)]
pub struct GcArguments {
    /// Which branch [default: all, and what is kept of former ones]
    pub branch: Option<String>,
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
pub struct TagArguments {
    /// Create a tag with this name; no branch can have it then
    pub name: Option<String>,
    /// What it names [default: the end of the default branch]
    pub point: Option<Point>,
    /// Delete a tag
    #[arg(short, long, value_name = "NAME", conflicts_with = "name")]
    pub delete: Option<String>,
}

/// Commands on computes.
#[derive(Subcommand, Debug)]
pub enum PgCommand {
    /// Make a compute, without starting it; one whose directory is lost is replaced
    Create(CreateArguments),
    /// Start a compute; makes it first if there is none, or if its directory is lost
    Start(CreateArguments),
    /// Stop a compute
    Stop(PgStopArguments),
    /// List computes; one is fenced when another has taken over its branch
    List,
    /// Fetch everything that a compute does not have yet, while it runs or is stopped
    ///
    /// From then on it asks the page server for no page. What was interrupted is taken up by doing it again.
    Hydrate(NameArgument),
    /// Move the LSN at which a compute reads pages it does not have forward
    Advance(AdvanceArguments),
    /// Stop a compute and remove its directory; what it has sent to the page server stays
    Destroy(NameArgument),
    /// Print the log of a compute
    Logs(NameArgument),
    /// Print a connection URI of a compute
    Connstr(ConnstrArguments),
}

#[derive(Args, Debug)]
pub struct CreateArguments {
    /// Name of the compute
    pub name: String,
    /// Where it begins; at an LSN what it changes goes nowhere [default: the end of branch NAME]
    #[arg(long, value_name = "POINT")]
    pub at: Option<Point>,
    /// What a commit survives: a crash (local), the loss of the compute's disk (pageserver)
    /// [default: local]
    #[arg(long, value_name = "local|pageserver")]
    pub durability: Option<Durability>,
    /// TCP port on the loopback address [default: any free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

#[derive(Args, Debug)]
pub struct AdvanceArguments {
    /// Name of the compute
    pub name: String,
    /// Where to; the page server must have received what the compute wrote up to there
    /// [default: as far as it has]
    pub lsn: Option<Lsn>,
}

#[derive(Args, Debug)]
pub struct PgStopArguments {
    /// Name of the compute
    pub name: String,
    /// Do not wait for a clean end; the next start recovers, as after a crash
    #[arg(long)]
    pub immediate: bool,
}

#[derive(Args, Debug)]
pub struct NameArgument {
    /// Name of the compute
    pub name: String,
}

#[derive(Args, Debug)]
pub struct ConnstrArguments {
    /// Name of the compute
    pub name: String,
    /// The database to connect to
    #[arg(short, long, default_value = "postgres")]
    pub database: String,
}

#[derive(Args, Debug)]
pub struct PsqlArguments {
    /// Where the compute stands
    pub point: Point,
    /// Arguments for psql
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

#[derive(Args, Debug)]
pub struct PageArguments {
    /// When
    pub point: Point,
    /// The relation: numbers of its tablespace, its database and its file, as in 1663/5/16384
    #[arg(value_name = "SPC/DB/REL")]
    pub relation: Relation,
    /// Number of the page
    #[arg(value_parser = parse_block)]
    pub block: BlockNumber,
    /// Which of the relation's files: main, fsm, vm or init
    #[arg(long, default_value = "main")]
    pub fork: ForkNumber,
    /// Write the 8192 bytes as they are
    #[arg(long)]
    pub raw: bool,
}

#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// What to compare [default: the end of the default branch]
    pub point: Option<Point>,
    /// Compare pages with every page image in the WAL instead: each record's own, as
    /// wal_consistency_checking = all adds them, at that record's LSN
    #[arg(long)]
    pub records: bool,
    /// Only images in records behind this LSN
    #[arg(long, value_name = "LSN", requires = "records")]
    pub since: Option<Lsn>,
    /// Then run servers on it, too: pg_amcheck on a throw-away compute, pg_dumpall of that and of the
    /// stock server, which must be equal; and compute the checksums of all pages
    #[arg(long, conflicts_with_all = ["records", "compute"])]
    pub deep: bool,
    /// Only read all files of the branch and of its ancestors, and name what is damaged: the same
    /// that every comparison with a stock server begins with. Needs no page server
    #[arg(long, conflicts_with_all = ["records", "compute", "deep"])]
    pub files: bool,
    /// Compare the whole data directory of this compute, which is stopped, with what the page server
    /// has at its end instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["point", "records"])]
    pub compute: Option<String>,
}

/// How long a branch is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime(pub Option<Duration>);

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Lifetime, String> {
        match parse_duration(text) {
            Some(time) => Ok(Lifetime(Some(time))),
            None if text == "never" => Ok(Lifetime(None)),
            None => Err("expected a time as in 90s, 10m, 2h or 7d, or never".to_owned()),
        }
    }
}

/// A relation named by its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Relation(pub RelFileLocator);

impl FromStr for Relation {
    type Err = String;

    fn from_str(text: &str) -> Result<Relation, String> {
        let numbers: Option<Vec<u32>> = text.split('/').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[spc, db, rel]) => {
                Ok(Relation(RelFileLocator { spc: Oid(spc), db: Oid(db), rel: Oid(rel) }))
            }
            _ => Err("expected three numbers, as in 1663/5/16384".to_owned()),
        }
    }
}

fn parse_block(text: &str) -> Result<BlockNumber, String> {
    let block = text.parse().ok().map(BlockNumber).filter(|block| *block <= BlockNumber::MAX);
    block.ok_or_else(|| format!("expected a number from 0 to {}", BlockNumber::MAX))
}
