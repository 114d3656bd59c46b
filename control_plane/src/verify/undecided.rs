//! Differences of a compute that are none if no catalog names what they are about, or only as something
//! unfinished.
//!
//! They are put aside until the comparison is over, since asking the catalogs takes a server
//! (`compute/orphans.rs`). Until then each counts as a difference.

use std::collections::BTreeMap;

use postgres_formats::relpath::parse_relation_path;
use postgres_formats::{Oid, RelFileLocator};

use super::directory::{DATABASE_FILES, TABLESPACES};
use super::report::{self, Difference, Permitted, Verification};

/// What a difference is about, by what a catalog may name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    /// A relation, by its files.
    Relation(RelFileLocator),
    /// The folder of a database in the tablespace that is its default one.
    Database {
        /// The tablespace.
        spc: Oid,
        /// The database.
        db: Oid,
    },
    /// A tablespace.
    Tablespace(Oid),
}

impl Subject {
    /// What the file or folder at `path` belongs to, if that is a database or a tablespace.
    pub fn of_path(path: &str) -> Option<Subject> {
        let (folder, name) = path.rsplit_once('/')?;
        if folder == TABLESPACES {
            return name.parse().ok().map(|oid| Subject::Tablespace(Oid(oid)));
        }
        // Where there could be a relation.
        let relation = parse_relation_path(&format!("{folder}/1")).ok()?.tag.locator();
        let is_databases = DATABASE_FILES.contains(&name) && relation.db != Oid::INVALID;
        is_databases.then_some(Subject::Database { spc: relation.spc, db: relation.db })
    }
}

/// What the catalogs say of a subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Nothing.
    Unnamed,
    /// It is an index that is not ready: only its file has to be there.
    NotReady,
    /// It is there for use.
    Named,
}

/// Which of the report's counters a difference belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    Relations,
    Pages,
    Files,
}

/// All that differs about one subject.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Findings {
    relations: u64,
    pages: u64,
    files: u64,
    /// The first of them.
    details: Vec<Difference>,
}

impl Findings {
    /// Whether only one side has a relation's file. That is found once, before anything else.
    fn lacks_the_file(&self) -> bool {
        self.details.iter().any(|difference| difference.kind == "relation")
    }

    fn total(&self) -> u64 {
        self.relations + self.pages + self.files
    }
}

/// What there is to decide.
pub(super) type Undecided = BTreeMap<Subject, Findings>;

/// How many differences these are.
pub(super) fn total(undecided: &Undecided) -> u64 {
    undecided.values().map(Findings::total).sum()
}

impl Verification {
    /// Adds a difference about something that a catalog may name.
    pub(super) fn differs(&mut self, counter: Counter, about: Subject, difference: Difference) {
        let mut findings = Findings::default();
        let (findings, is_decided) = match self.compute {
            Some(_) => (self.undecided.entry(about).or_default(), false),
            // A stock server has what its own recovery made, whether or not anything names it.
            None => (&mut findings, true),
        };
        *match counter {
            Counter::Relations => &mut findings.relations,
            Counter::Pages => &mut findings.pages,
            Counter::Files => &mut findings.files,
        } += 1;
        report::keep(&mut findings.details, difference);
        if is_decided {
            let findings = std::mem::take(findings);
            self.confirm(findings);
        }
    }

    /// Decides on all that was put aside. What is named is a difference; `remark` is added to what is
    /// told of it.
    pub(super) fn decide(&mut self, standing: impl Fn(Subject) -> Standing, remark: &str) {
        for (subject, mut findings) in std::mem::take(&mut self.undecided) {
            match standing(subject) {
                Standing::Unnamed => self.permit(Permitted::OrphanedFile, findings.total()),
                Standing::NotReady if !findings.lacks_the_file() => {
                    self.permit(Permitted::UnfinishedIndex, findings.total());
                }
                Standing::NotReady | Standing::Named => {
                    for difference in &mut findings.details {
                        difference.detail.push_str(remark);
                    }
                    self.confirm(findings);
                }
            }
        }
    }

    fn confirm(&mut self, findings: Findings) {
        self.relations.different += findings.relations;
        self.pages.different += findings.pages;
        self.files.different += findings.files;
        for difference in findings.details {
            self.describe(difference);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use postgres_formats::{Lsn, TimelineId};

    use super::*;
    use crate::branch::Branch;

    fn report(compute: Option<&str>) -> Verification {
        let branch = Branch {
            name: "main".parse().unwrap(),
            timeline: TimelineId::from_bytes([1; 16]),
            ancestor: None,
            last_record_lsn: None,
            is_default: true,
            stop: None,
            protected: false,
            expires: None,
            retention: pageserver_client::RetentionSpec::Default,
            kept_because: None,
            detaching: false,
        };
        let mut report = Verification::new(&branch, Lsn::new(0x16B3748));
        report.compute = compute.map(str::to_owned);
        let relation =
            |rel| Subject::Relation(RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(rel) });
        let database = Subject::Database { spc: Oid(1663), db: Oid(16400) };
        for (counter, about, times) in [
            (Counter::Relations, relation(16384), 1),
            (Counter::Pages, relation(16384), 30),
            (Counter::Relations, relation(16385), 2),
            (Counter::Files, database, 2),
            (Counter::Files, Subject::Tablespace(Oid(16401)), 1),
        ] {
            for _ in 0..times {
                report.differs(counter, about, Difference::of_file("x", "missing".to_owned()));
            }
        }
        report
    }

    #[test]
    fn paths_of_databases_and_tablespaces() {
        let database = |spc, db| Some(Subject::Database { spc: Oid(spc), db: Oid(db) });
        for (path, subject) in [
            ("base/5/PG_VERSION", database(1663, 5)),
            ("base/5/pg_filenode.map", database(1663, 5)),
            ("pg_tblspc/16400/PG_15_202209061/5/PG_VERSION", database(16400, 5)),
            ("pg_tblspc/16400", Some(Subject::Tablespace(Oid(16400)))),
            ("pg_tblspc/16400/PG_15_202209061", None),
            ("pg_tblspc/x", None),
            ("global/pg_filenode.map", None),
            ("base/5/stray", None),
            ("base/5/16384", None),
            ("pg_xact/0000", None),
            ("PG_VERSION", None),
        ] {
            assert_eq!(Subject::of_path(path), subject, "{path}");
        }
    }

    #[test]
    fn of_a_stock_server_all_are_differences() {
        let report = report(None);
        assert_eq!((report.different(), total(&report.undecided)), (36, 0));
        assert_eq!(report.pages.different, 30);
        assert_eq!(report.differences.len(), 20);
    }

    #[test]
    fn only_what_nothing_names_is_permitted() {
        let mut report = report(Some("main"));
        assert_eq!((report.different(), report.differences.len()), (36, 0));
        let named = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16385) };
        let standing = |subject| match subject == Subject::Relation(named) {
            true => Standing::Named,
            false => Standing::Unnamed,
        };
        report.decide(standing, "; it is named");
        assert_eq!(report.different(), 2);
        assert_eq!((report.relations.different, report.files.different), (2, 0));
        assert_eq!(report.pages.permitted, [(Permitted::OrphanedFile, 34)].into());
        assert_eq!(report.differences.len(), 2);
        assert!(report.differences.iter().all(|d| d.detail == "missing; it is named"));
    }

    #[test]
    fn an_index_that_is_not_ready_has_to_have_a_file_at_least() {
        let index = |rel| {
            let rel = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(rel) };
            rel.fork(postgres_formats::ForkNumber::Main)
        };
        let mut report = report(Some("main"));
        report.undecided.clear();
        for (rel, kind) in [(1, "size"), (1, "page"), (2, "size"), (2, "relation")] {
            let about = Subject::Relation(index(rel).locator());
            let difference = Difference::of_relation(kind, index(rel), "2 pages".to_owned());
            report.differs(Counter::Relations, about, difference);
        }
        report.decide(|_| Standing::NotReady, "");
        assert_eq!(report.pages.permitted, [(Permitted::UnfinishedIndex, 2)].into());
        assert_eq!(report.different(), 2);
    }
}
