//! Branches that come, go and are damaged, in a repository that is opened again and again and never
//! knows everything, and in a model that does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use pageserver::repository::{Repository, RepositoryError};
use pageserver_client::BranchName;
use postgres_formats::TimelineId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{Folder, create, damage, name};

const NAMES: [&str; 6] = ["main", "a", "b", "c", "d", "e"];
const STEPS: usize = 250;

#[derive(Clone)]
struct Line {
    id: TimelineId,
    ancestor: Option<TimelineId>,
}

/// What is so.
#[derive(Default)]
struct Model {
    lines: BTreeMap<BranchName, Line>,
    references: BTreeSet<BranchName>,
    manifests: BTreeSet<TimelineId>,
}

/// How something ends, without the words.
#[derive(PartialEq, Eq, Debug)]
enum End {
    Done,
    NoSuchBranch,
    Exists,
    Unreadable,
    CannotLoad,
    HasChildren,
    MayBeNeeded,
    IsDefault,
}

fn end<T>(result: Result<T, RepositoryError>) -> End {
    match result {
        Ok(_) => End::Done,
        Err(RepositoryError::NoSuchBranch { .. }) => End::NoSuchBranch,
        Err(RepositoryError::AlreadyExists(_)) => End::Exists,
        Err(RepositoryError::Unreadable { .. }) => End::Unreadable,
        Err(RepositoryError::Manifest(_)) => End::CannotLoad,
        Err(RepositoryError::HasChildren { .. }) => End::HasChildren,
        Err(RepositoryError::MayBeNeeded { .. }) => End::MayBeNeeded,
        Err(RepositoryError::IsDefault(_)) => End::IsDefault,
        Err(error) => panic!("{error}"),
    }
}

impl Model {
    fn is_whole(&self, name: &BranchName, line: &Line) -> bool {
        !self.references.contains(name) && !self.manifests.contains(&line.id)
    }

    fn find(&self, name: &BranchName) -> End {
        match self.lines.get(name) {
            None => End::NoSuchBranch,
            Some(line) if self.is_whole(name, line) => End::Done,
            Some(_) => End::Unreadable,
        }
    }

    /// Whether nothing that a timeline stands on is damaged.
    fn loads(&self, id: TimelineId) -> bool {
        let ancestor = self.lines.values().find(|line| line.id == id).and_then(|l| l.ancestor);
        !self.manifests.contains(&id) && ancestor.is_none_or(|id| self.loads(id))
    }

    fn create(&self, name: &BranchName, from: &BranchName) -> End {
        match (self.find(name), self.find(from)) {
            (End::Done, _) => End::Exists,
            (End::Unreadable, _) => End::Unreadable,
            (_, End::Done) if self.loads(self.lines[from].id) => End::Done,
            (_, End::Done) => End::CannotLoad,
            (_, other) => other,
        }
    }

    fn rename(&self, old: &BranchName, new: &BranchName) -> End {
        match (self.find(old), self.find(new)) {
            (End::Done, End::Done) => End::Exists,
            (End::Done, End::Unreadable) => End::Unreadable,
            (End::Done, _) if old.as_str() == "main" => End::IsDefault,
            (other, _) => other,
        }
    }

    fn delete(&self, name: &BranchName) -> End {
        match self.find(name) {
            End::Done if name.as_str() == "main" => return End::IsDefault,
            End::Done => {}
            other => return other,
        }
        let id = self.lines[name].id;
        let stands_on_it = |(_, line): &(&BranchName, &Line)| line.ancestor == Some(id);
        let is_whole = |(name, line): &(&BranchName, &Line)| self.is_whole(name, line);
        if self.lines.iter().filter(stands_on_it).any(|entry| is_whole(&entry)) {
            return End::HasChildren;
        }
        // Nobody knows what a timeline stands on whose manifest cannot be read.
        if !self.manifests.is_empty() || self.lines.iter().any(|entry| stands_on_it(&entry)) {
            return End::MayBeNeeded;
        }
        End::Done
    }
}

struct Run {
    folder: Folder,
    repository: Arc<Repository>,
    model: Model,
    damaged: Vec<(PathBuf, Vec<u8>)>,
    /// Whether nothing was damaged when it was opened: what has been mended is known at once to those
    /// who ask for it, while the list has its pace.
    list_is_exact: bool,
    rng: StdRng,
}

impl Run {
    fn any_name(&mut self) -> BranchName {
        name(NAMES[self.rng.random_range(0..NAMES.len())])
    }

    fn create(&mut self) {
        let (new, from) = (self.any_name(), self.any_name());
        let expected = self.model.create(&new, &from);
        let made = create(&self.repository, &new, &from);
        if let Ok(branch) = &made {
            let ancestor = branch.ancestor.map(|ancestor| ancestor.timeline);
            self.model.lines.insert(new.clone(), Line { id: branch.timeline, ancestor });
        }
        assert_eq!(end(made), expected, "create {new} from {from}");
    }

    fn rename(&mut self) {
        let (old, new) = (self.any_name(), self.any_name());
        let expected = self.model.rename(&old, &new);
        let renamed = self.repository.rename_branch(&old, &new);
        if renamed.is_ok() {
            let line = self.model.lines.remove(&old).unwrap();
            self.model.lines.insert(new.clone(), line);
        }
        assert_eq!(end(renamed), expected, "rename {old} to {new}");
    }

    fn delete(&mut self) {
        let name = self.any_name();
        let expected = self.model.delete(&name);
        let deleted = self.repository.delete_branch(&name);
        if let Ok(branch) = &deleted {
            self.model.lines.remove(&name);
            assert!(!self.folder.timeline(branch.timeline).exists());
        }
        assert_eq!(end(deleted), expected, "delete {name}");
    }

    fn list(&mut self) {
        let model = &self.model;
        let whole = |(name, line): &(&BranchName, &Line)| model.is_whole(name, line);
        let expected: Vec<_> = model.lines.iter().filter(whole).map(|(n, l)| (n, l.id)).collect();
        let listed = self.repository.branches().unwrap();
        let listed: Vec<_> = listed.iter().map(|b| (&b.name, b.timeline)).collect();
        assert_eq!(listed, expected);
    }

    /// Ended and started again, perhaps with damage done in between.
    fn reopen(&mut self) {
        self.repository.shut_down();
        for (name, line) in self.model.lines.clone() {
            if name.as_str() == "main" || self.rng.random_ratio(4, 5) {
                continue;
            }
            if self.rng.random() && self.model.references.insert(name.clone()) {
                let path = self.folder.reference(&name);
                self.damaged.push((path.clone(), damage(&path)));
            } else if self.model.manifests.insert(line.id) {
                let path = self.folder.timeline(line.id).join("manifest");
                self.damaged.push((path.clone(), damage(&path)));
            }
        }
        self.list_is_exact = self.damaged.is_empty();
        self.repository = self.folder.open();
    }

    fn mend(&mut self) {
        for (path, whole) in self.damaged.drain(..) {
            fs::write(path, whole).unwrap();
        }
        self.model.references.clear();
        self.model.manifests.clear();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..8 => self.create(),
            8..11 => self.delete(),
            11..13 => self.rename(),
            13 => {
                if self.list_is_exact {
                    self.list();
                }
            }
            14..16 => self.reopen(),
            16 => self.mend(),
            _ => {
                let name = self.any_name();
                let expected = self.model.find(&name);
                assert_eq!(end(self.repository.branch(&name)), expected, "find {name}");
            }
        }
    }
}

#[test]
fn answers_do_not_depend_on_what_is_known_already() {
    let seed = rand::random();
    println!("seed {seed}");
    let folder = Folder::new_in_memory();
    let repository = folder.open();
    let id = repository.branch(&name("main")).unwrap().timeline;
    let mut model = Model::default();
    model.lines.insert(name("main"), Line { id, ancestor: None });
    let rng = StdRng::seed_from_u64(seed);
    let mut run = Run { folder, repository, model, damaged: Vec::new(), list_is_exact: true, rng };
    for _ in 0..STEPS {
        run.step();
    }
}
