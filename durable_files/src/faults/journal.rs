//! `Journal`: what was done to a folder, operation by operation.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::content::Content;

/// A file or a folder, whatever its names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct FileId(pub(super) u32);

/// The folder that is watched.
pub(super) const ROOT: FileId = FileId(0);

/// A name in a folder, and what it names from now on.
#[derive(Clone, Debug)]
pub(super) struct NameEdit {
    pub folder: FileId,
    pub name: OsString,
    pub to: Option<FileId>,
    pub is_folder: bool,
}

/// One operation that has succeeded, or as much of it as has.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Bytes at an offset.
    Write { file: FileId, offset: u64, bytes: Vec<u8> },
    /// A new length.
    Length { file: FileId, length: u64 },
    /// Names that change together.
    Names(Vec<NameEdit>),
    /// What a file or a folder had is durable.
    Sync(FileId),
    /// Syncing a file failed: what had not been durable may never be, whatever is synced later. (A
    /// folder whose names cannot be written is one of a file system that has given up.)
    Lost(FileId),
}

impl Op {
    fn describe(&self, tree: &Tree) -> String {
        let path = |id: &FileId| tree.path_of(*id).display().to_string();
        match self {
            Op::Write { file, offset, bytes } => {
                format!("write {} {offset}+{}", path(file), bytes.len())
            }
            Op::Length { file, length } => format!("length {} {length}", path(file)),
            Op::Names(edits) => {
                let edit = |edit: &NameEdit| {
                    let sign = if edit.to.is_some() { '+' } else { '-' };
                    format!("{sign}{}/{}", path(&edit.folder), edit.name.display())
                };
                format!("names {}", edits.iter().map(edit).collect::<Vec<_>>().join(" "))
            }
            Op::Sync(id) => format!("sync {}", path(id)),
            Op::Lost(id) => format!("sync failed {}", path(id)),
        }
    }
}

/// What is in a folder: files with their content, folders with their names.
#[derive(Clone, Default, Debug)]
pub struct Tree {
    pub(super) files: HashMap<FileId, Content>,
    pub(super) folders: HashMap<FileId, BTreeMap<OsString, FileId>>,
}

impl Tree {
    /// Reads the folder at `root`.
    pub(super) fn read(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        tree.folders.insert(ROOT, BTreeMap::new());
        tree.read_folder(root, ROOT)?;
        Ok(tree)
    }

    fn read_folder(&mut self, path: &Path, id: FileId) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let new = self.next_id();
            if entry.file_type()?.is_dir() {
                self.folders.insert(new, BTreeMap::new());
                self.read_folder(&entry.path(), new)?;
            } else {
                self.files.insert(new, Content::of(fs::read(entry.path())?));
            }
            self.folders.entry(id).or_default().insert(entry.file_name(), new);
        }
        Ok(())
    }

    /// Nothing is ever taken out of the tables, so their size is a number not yet given.
    pub(super) fn next_id(&self) -> FileId {
        FileId((self.files.len() + self.folders.len()) as u32)
    }

    /// What `path`, relative to the root, names.
    pub(super) fn find(&self, path: &Path) -> Option<FileId> {
        path.iter().try_fold(ROOT, |at, name| self.folders.get(&at)?.get(name).copied())
    }

    /// A path of a file or a folder; none if it has no name.
    fn path_of(&self, id: FileId) -> PathBuf {
        for (folder, names) in &self.folders {
            if let Some((name, _)) = names.iter().find(|(_, to)| **to == id) {
                return self.path_of(*folder).join(name);
            }
        }
        PathBuf::new()
    }

    /// The folder of `path`, and the name in it.
    pub(super) fn place<'a>(&self, path: &'a Path) -> Option<(FileId, &'a OsStr)> {
        Some((self.find(path.parent()?)?, path.file_name()?))
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { file, offset, bytes } => {
                self.files.entry(*file).or_default().write(*offset as usize, bytes);
            }
            Op::Length { file, length } => {
                self.files.entry(*file).or_default().set_len(*length as usize);
            }
            Op::Names(edits) => {
                for NameEdit { folder, name, to, is_folder } in edits {
                    if let (Some(to), true) = (to, is_folder) {
                        self.folders.entry(*to).or_default();
                    }
                    let names = self.folders.entry(*folder).or_default();
                    match to {
                        Some(to) => drop(names.insert(name.clone(), *to)),
                        None => drop(names.remove(name)),
                    }
                }
            }
            Op::Sync(_) | Op::Lost(_) => {}
        }
    }

    /// Writes it all into the empty folder `into`.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn build(&self, into: &Path) -> io::Result<()> {
        self.build_folder(ROOT, into)
    }

    fn build_folder(&self, id: FileId, into: &Path) -> io::Result<()> {
        for (name, to) in self.folders.get(&id).into_iter().flatten() {
            let path = into.join(name);
            match self.folders.contains_key(to) {
                true => {
                    fs::create_dir(&path)?;
                    self.build_folder(*to, &path)?;
                }
                false => self.files.get(to).cloned().unwrap_or_default().build(&path)?,
            }
        }
        Ok(())
    }

    /// A number that tells it from others: of the names that are reached and what they name.
    pub(super) fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        fn add(tree: &Tree, id: FileId, hasher: &mut DefaultHasher) {
            match (tree.folders.get(&id), tree.files.get(&id)) {
                (Some(names), _) => {
                    names.len().hash(hasher);
                    for (name, to) in names {
                        name.hash(hasher);
                        add(tree, *to, hasher);
                    }
                }
                (None, content) => content.hash(hasher),
            }
        }
        let mut hasher = DefaultHasher::new();
        add(self, ROOT, &mut hasher);
        hasher.finish()
    }
}

/// What was done to a folder since a recorder was attached to it.
#[derive(Clone, Debug)]
pub struct Journal {
    /// What was there before, all of it durable.
    pub(super) before: Tree,
    pub(super) ops: Vec<Op>,
}

impl Journal {
    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The last operations of the first `after`, in words, with their numbers.
    pub fn describe(&self, after: usize) -> String {
        let mut tree = self.before.clone();
        let mut lines = Vec::new();
        for (number, op) in self.ops.iter().enumerate().take(after) {
            tree.apply(op);
            if number + 12 >= after {
                lines.push(format!("  {number} {}", op.describe(&tree)));
            }
        }
        lines.join("\n")
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
