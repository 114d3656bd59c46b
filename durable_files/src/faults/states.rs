//! The states that a crash may leave.

use std::collections::{HashMap, HashSet};

use super::journal::{FileId, Journal, Op, Tree};

/// A write reaches the disk in pieces of this many bytes.
const SECTOR: u64 = 512;

/// A state of the folder that a crash may leave.
#[derive(Clone, Debug)]
pub struct CrashState {
    /// How many operations had been done when it happened.
    pub after: usize,
    /// What of them is there, in words.
    pub what: String,
    /// Whether all is there but one operation, or besides what is durable only one.
    pub differs_in_one: bool,
    /// What is in the folder.
    pub tree: Tree,
}

impl CrashState {
    /// A number that tells what is in the folder from what is in others.
    pub fn fingerprint(&self) -> u64 {
        self.tree.fingerprint()
    }
}

impl Op {
    fn is_of_content(&self) -> bool {
        matches!(self, Op::Write { .. } | Op::Length { .. })
    }

    fn is_of_names(&self) -> bool {
        matches!(self, Op::Names(_))
    }

    /// The files and folders that have to be synced for it to be durable.
    fn touches(&self) -> Vec<FileId> {
        match self {
            Op::Write { file, .. } | Op::Length { file, .. } => vec![*file],
            Op::Names(edits) => edits.iter().map(|edit| edit.folder).collect(),
            Op::Sync(_) | Op::Lost(_) => Vec::new(),
        }
    }
}

/// What of an operation is there.
enum Part<'a> {
    All,
    None,
    Instead(&'a Op),
}

impl Journal {
    /// The state after a crash at the end that takes all that is not durable.
    pub fn least_state(&self) -> CrashState {
        let mut tree = self.before.clone();
        let durable = |(at, _): &(usize, &Op)| is_durable(&self.ops, *at);
        self.ops.iter().enumerate().filter(durable).for_each(|(_, op)| tree.apply(op));
        CrashState {
            after: self.ops.len(),
            what: "what is durable".to_owned(),
            differs_in_one: false,
            tree,
        }
    }

    /// The state that the end of the process leaves at the end, when the machine does not crash: everything
    /// that has been done, durable or not.
    pub fn whole_state(&self) -> CrashState {
        let mut tree = self.before.clone();
        self.ops.iter().for_each(|op| tree.apply(op));
        CrashState {
            after: self.ops.len(),
            what: "everything".to_owned(),
            differs_in_one: false,
            tree,
        }
    }

    /// The states that a crash after the first `after` operations may leave: those that are durable
    /// are there; of the rest all, none, only content, only names, all but any one, any one alone; the
    /// last write torn at any border of sectors, either part of it missing; content that made a
    /// file longer as zeros. States that are equal come once.
    pub fn crash_states(&self, after: usize) -> Vec<CrashState> {
        let ops = self.ops.get(..after).unwrap_or(&self.ops);
        let durable: Vec<bool> = (0..ops.len()).map(|at| is_durable(ops, at)).collect();
        let open: Vec<usize> = (0..ops.len())
            .filter(|at| !durable[*at] && (ops[*at].is_of_content() || ops[*at].is_of_names()))
            .collect();
        // All states have this in common.
        let common = open.first().copied().unwrap_or(ops.len());
        let mut base = self.before.clone();
        ops[..common].iter().for_each(|op| base.apply(op));
        let mut found = States { ops, common, base, seen: HashSet::new(), states: Vec::new() };

        found.add("everything".to_owned(), |_| Part::All);
        if open.is_empty() {
            return found.states;
        }
        let or_durable = |at: usize, is_there: bool| match is_there || durable[at] {
            true => Part::All,
            false => Part::None,
        };
        found.add("what is durable".to_owned(), |at| or_durable(at, false));
        found.add("content".to_owned(), |at| or_durable(at, ops[at].is_of_content()));
        found.add("names".to_owned(), |at| or_durable(at, ops[at].is_of_names()));
        let before = found.states.len();
        for one in &open {
            found.add(format!("all but operation {one}"), |at| or_durable(at, at != *one));
            found.add(format!("of the open ones {one}"), |at| or_durable(at, at == *one));
        }
        found.states[before..].iter_mut().for_each(|state| state.differs_in_one = true);
        let zeros = self.zeros(ops, &durable);
        found.add("zeros for content".to_owned(), |at| {
            zeros[at].as_ref().map_or(Part::All, Part::Instead)
        });
        if let Some((last, Op::Write { file, offset, bytes })) = ops.iter().enumerate().next_back()
        {
            let end = offset + bytes.len() as u64;
            let borders = (offset / SECTOR + 1..).map(|n| n * SECTOR).take_while(|at| *at < end);
            for border in borders {
                let (head, tail) = bytes.split_at((border - offset) as usize);
                let parts = [(*offset, head, "ends"), (border, tail, "begins")];
                for (offset, bytes, verb) in parts {
                    let torn = Op::Write { file: *file, offset, bytes: bytes.to_vec() };
                    found.add(format!("the last write {verb} at {border}"), |at| {
                        if at == last { Part::Instead(&torn) } else { Part::All }
                    });
                }
            }
        }
        found.states
    }
}

impl Journal {
    /// In place of writes that are not durable and made a file longer: the length alone.
    fn zeros(&self, ops: &[Op], durable: &[bool]) -> Vec<Option<Op>> {
        let mut lengths: HashMap<FileId, u64> =
            self.before.files.iter().map(|(id, content)| (*id, content.len() as u64)).collect();
        let mut zeros = Vec::new();
        for (op, durable) in ops.iter().zip(durable) {
            zeros.push(match op {
                Op::Write { file, offset, bytes } => {
                    let length = lengths.entry(*file).or_default();
                    let is_behind = *offset >= *length;
                    *length = (*length).max(offset + bytes.len() as u64);
                    let zeros = || vec![0; bytes.len()];
                    (is_behind && !durable).then(|| Op::Write {
                        file: *file,
                        offset: *offset,
                        bytes: zeros(),
                    })
                }
                Op::Length { file, length } => {
                    lengths.insert(*file, *length);
                    None
                }
                _ => None,
            });
        }
        zeros
    }
}

/// Whether what operation `at` did has been made durable by those behind it.
fn is_durable(ops: &[Op], at: usize) -> bool {
    let touched = ops[at].touches();
    !touched.is_empty()
        && touched.iter().all(|id| {
            let first = ops[at + 1..].iter().find_map(|op| match op {
                Op::Sync(synced) if synced == id => Some(true),
                Op::Lost(lost) if lost == id => Some(false),
                _ => None,
            });
            first == Some(true)
        })
}

struct States<'a> {
    ops: &'a [Op],
    common: usize,
    base: Tree,
    seen: HashSet<u64>,
    states: Vec<CrashState>,
}

impl<'a> States<'a> {
    fn add<'p>(&mut self, what: String, part: impl Fn(usize) -> Part<'p>) {
        let mut tree = self.base.clone();
        for (at, op) in self.ops.iter().enumerate().skip(self.common) {
            match part(at) {
                Part::All => tree.apply(op),
                Part::None => {}
                Part::Instead(other) => tree.apply(other),
            }
        }
        if self.seen.insert(tree.fingerprint()) {
            let after = self.ops.len();
            self.states.push(CrashState { after, what, differs_in_one: false, tree });
        }
    }
}
