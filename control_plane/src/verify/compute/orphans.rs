//! Files that nothing names: what a crash leaves behind on one side only.
//!
//! A transaction makes the files of its relations at once, and their records reach the disk later; if
//! the server is killed in between, the files stay and nobody else ever hears of them. Removing works
//! the same way round: a transaction that rolls back removes its files and does not wait for its
//! record. Builders of indexes write pages before the records of those. In each case the transaction
//! has not committed, so no catalog names the file: no statement can reach it.
//!
//! `CREATE INDEX CONCURRENTLY` and its like commit the index before they build it, marked as not ready. Cut
//! off while it was built, such an index stays: its file is there on both sides, its pages are those of
//! a builder that was killed, and nobody writes to it or reads it.
//!
//! Whether that is so, PostgreSQL itself is asked, on a throw-away compute with the page server's
//! catalogs at that very LSN. What it still has to decide is taken both ways: relations that a prepared
//! transaction has made are named after its commit, those that it drops were named before.

use std::collections::{BTreeMap, BTreeSet};

use postgres_formats::{Oid, RelFileLocator};

use crate::compute::Compute;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::verify::report::Verification;
use crate::verify::throw_away::ThrowAway;
use crate::verify::undecided::{Standing, Subject};
use crate::verify::{VerifyStep, Watcher};

/// Rows count, not what indexes say of them.
const SETTINGS: &str = "ignore_system_indexes = on\n";

/// Databases that hardly any cluster lacks.
const FIRST_DATABASES: [&str; 2] = ["postgres", "template1"];

/// Against settings of databases and of the user. Each is a statement of its own.
const SESSION: [&str; 3] = [
    "set search_path = pg_catalog",
    "set default_transaction_read_only = off",
    "set statement_timeout = 0",
];

const TABLESPACES: &str = "select oid from pg_tablespace";
const DATABASES: &str = "select oid, dattablespace from pg_database";
/// So that all can be reached, by names that need no quotes and are the same in all encodings.
const OPEN_DATABASES: &str = "update pg_database set datname = ('zenith-verify-' || oid)::name, \
     datallowconn = true, datconnlimit = -1";

/// Relation maps stand for those whose number is 0 and that have files. An answer of null for one of
/// them is no answer.
const RELATIONS: &str = "select case when c.relisshared then 0 else d.oid end as db, \
     case when c.reltablespace = 0 then d.dattablespace else c.reltablespace end as spc, \
     case when c.relfilenode = 0 then pg_relation_filenode(c.oid) else c.relfilenode end as rel, \
     case when i.indisready then 1 when i.indisready is null then 1 else 0 end as ready \
     from pg_class c cross join pg_database d left join pg_index i on i.indexrelid = c.oid where d.datname = current_database() \
     and (c.relfilenode <> 0 or c.relkind in ('r', 'i', 't', 'S', 'm'))";

const PREPARED: &str = "select format('commit prepared %L', gid) as command \
     from pg_prepared_xacts where database = current_database()";

/// What the catalogs name.
#[derive(Default)]
struct Named {
    relations: BTreeSet<RelFileLocator>,
    /// Indexes that are not ready.
    not_ready: BTreeSet<RelFileLocator>,
    /// Each with its default tablespace.
    databases: BTreeMap<Oid, Oid>,
    tablespaces: BTreeSet<Oid>,
}

impl Named {
    fn standing(&self, subject: Subject) -> Standing {
        let is_named = match subject {
            Subject::Relation(relation) => self.relations.contains(&relation),
            Subject::Database { spc, db } => self.databases.get(&db) == Some(&spc),
            Subject::Tablespace(spc) => self.tablespaces.contains(&spc),
        };
        match subject {
            _ if is_named => Standing::Named,
            Subject::Relation(relation) if self.not_ready.contains(&relation) => Standing::NotReady,
            _ => Standing::Unnamed,
        }
    }

    fn add_relations(&mut self, server: &mut Control) -> Result<()> {
        for row in server.rows(RELATIONS)? {
            let [spc, db, rel] = ["spc", "db", "rel"].map(|column| row.value(column).map(Oid));
            let relation = RelFileLocator { spc: spc?, db: db?, rel: rel? };
            let is_ready = row.value::<u32>("ready")? == 1;
            if is_ready { &mut self.relations } else { &mut self.not_ready }.insert(relation);
        }
        Ok(())
    }
}

/// Decides on what the comparison has put aside. The caller holds no compute's lock. That the catalogs
/// cannot be asked is no error: then everything is a difference.
pub(super) fn decide(
    repository: &Repository,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    if report.undecided.is_empty() {
        return Ok(());
    }
    let asked = ask(repository, report, watcher);
    watcher.check()?;
    match asked {
        Ok(named) => report.decide(|subject| named.standing(subject), ""),
        Err(error) => {
            let remark = format!("; whether a catalog names it is not known: {error}");
            report.decide(|_| Standing::Named, &remark);
        }
    }
    Ok(())
}

fn ask(repository: &Repository, report: &Verification, watcher: &mut Watcher<'_>) -> Result<Named> {
    watcher.tell(VerifyStep::Starting)?;
    let throw_away = ThrowAway::start(repository, &report.branch, report.lsn, SETTINGS)?;
    let compute = throw_away.compute();
    let mut named = Named::default();
    {
        let mut server = connect(compute, FIRST_DATABASES[0])
            .or_else(|_| connect(compute, FIRST_DATABASES[1]))?;
        for row in server.rows(TABLESPACES)? {
            named.tablespaces.insert(Oid(row.value("oid")?));
        }
        for row in server.rows(DATABASES)? {
            named.databases.insert(Oid(row.value("oid")?), Oid(row.value("dattablespace")?));
        }
        server.rows(OPEN_DATABASES)?;
    }
    for db in concerned(report.undecided.keys(), &named.databases) {
        watcher.check()?;
        let mut server = connect(compute, &format!("zenith-verify-{db}"))?;
        named.add_relations(&mut server)?;
        for row in server.rows(PREPARED)? {
            server.rows(row.text("command")?)?;
        }
        if !server.rows(PREPARED)?.is_empty() {
            return Err(Error::Conflict("a prepared transaction does not commit".to_owned()));
        }
        named.add_relations(&mut server)?;
    }
    throw_away.destroy()?;
    Ok(named)
}

/// The databases whose relations have to be asked for. Those that all share are named in each.
fn concerned<'s>(
    subjects: impl Iterator<Item = &'s Subject>,
    databases: &BTreeMap<Oid, Oid>,
) -> BTreeSet<Oid> {
    let of_relation = |subject: &Subject| match subject {
        Subject::Relation(relation) if relation.db == Oid::INVALID => {
            databases.keys().next().copied()
        }
        Subject::Relation(relation) => Some(relation.db),
        Subject::Database { .. } | Subject::Tablespace(_) => None,
    };
    subjects.filter_map(of_relation).filter(|db| databases.contains_key(db)).collect()
}

fn connect(compute: &Compute, database: &str) -> Result<Control> {
    let mut server = Control::connect_to("throw-away compute", &compute.connstr(database))?;
    for statement in SESSION {
        server.rows(statement)?;
    }
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(spc: u32, db: u32, rel: u32) -> RelFileLocator {
        RelFileLocator { spc: Oid(spc), db: Oid(db), rel: Oid(rel) }
    }

    #[test]
    fn a_name_is_of_all_three_numbers() {
        let named = Named {
            relations: [relation(1663, 5, 16384)].into(),
            databases: [(Oid(5), Oid(1663))].into(),
            tablespaces: [Oid(16400)].into(),
            not_ready: [relation(1663, 5, 16384), relation(1663, 5, 16390)].into(),
        };
        let standing = |subject| named.standing(subject);
        let is_named = |subject| standing(subject) == Standing::Named;
        let index = Subject::Relation(relation(1663, 5, 16390));
        assert_eq!(standing(index), Standing::NotReady);
        assert!(is_named(Subject::Relation(relation(1663, 5, 16384))));
        for other in [(16400, 5, 16384), (1663, 6, 16384), (1663, 5, 16385)] {
            assert!(!is_named(Subject::Relation(relation(other.0, other.1, other.2))));
        }
        assert!(is_named(Subject::Database { spc: Oid(1663), db: Oid(5) }));
        assert!(!is_named(Subject::Database { spc: Oid(16400), db: Oid(5) }));
        assert!(!is_named(Subject::Database { spc: Oid(1663), db: Oid(6) }));
        assert!(is_named(Subject::Tablespace(Oid(16400))));
        assert!(!is_named(Subject::Tablespace(Oid(16401))));
    }

    #[test]
    fn databases_that_are_gone_are_not_asked() {
        let databases = [(Oid(4), Oid(1663)), (Oid(5), Oid(1663))].into();
        let asked = |relations: &[RelFileLocator]| {
            let subjects: Vec<_> = relations.iter().copied().map(Subject::Relation).collect();
            concerned(subjects.iter(), &databases).into_iter().map(|db| db.0).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[relation(1663, 5, 1), relation(16400, 5, 2)]), [5]);
        assert_eq!(asked(&[relation(1663, 77, 1)]), []);
        assert_eq!(asked(&[relation(1664, 0, 1262)]), [4]);
    }
}
