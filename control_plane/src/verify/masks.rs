//! PostgreSQL's own masks, run by a stock process that loads the redo module.

use std::collections::BTreeSet;
use std::time::Duration;

use postgres_formats::control_file::ControlFile;
use postgres_formats::{PageImage, SystemId};
use slog::{Discard, Logger, o};
use walredo_pool::{Account, PendingRedo, RedoError, WalRedoConfig, WalRedoPool};

use super::masked::{Masked, Pair};
use super::scratch::Scratch;
use crate::companions;
use crate::error::{Error, Result};
use crate::repository::Repository;

/// How long one mask may take, the start of the process included.
const MASK_TIMEOUT: Duration = Duration::from_secs(30);

/// The process. Ends when this value is dropped.
pub(super) struct Masks(WalRedoPool);

impl Masks {
    /// `control_file`: of the cluster whose pages are masked.
    pub fn new(repository: &Repository, scratch: &Scratch, control_file: Vec<u8>) -> Result<Masks> {
        let (uid, gid) = repository.account().ids();
        let config = WalRedoConfig {
            postgres_bin_dir: repository.config().pg_bin_dir.clone(),
            module_path: repository.library(companions::WALREDO),
            libraries: repository.config().walredo.libraries.clone(),
            work_dir: {
                let _identity = repository.account().enter();
                scratch.folder("masks")?
            },
            control_file,
            processes: 1,
            processes_min: 1,
            idle_after: Duration::MAX,
            account: repository.account().must_switch().then_some(Account { uid, gid }),
            request_timeout: MASK_TIMEOUT,
        };
        WalRedoPool::new(config, Logger::root(Discard, o!())).map(Masks).map_err(masks_failed)
    }

    /// The same where nothing is known of the cluster but its number: masks depend on nothing else.
    pub fn of_system(
        repository: &Repository,
        scratch: &Scratch,
        system_id: SystemId,
    ) -> Result<Masks> {
        Masks::new(repository, scratch, ControlFile::for_new_cluster(system_id).encode().to_vec())
    }

    /// Begins to mask two versions of a page.
    pub fn begin(&self, pair: Pair<'_>) -> MaskedPair {
        let begin = |page: &PageImage| self.0.submit_mask(pair.mask, page, pair.block);
        let (ours, theirs) = (begin(pair.ours), begin(pair.theirs));
        MaskedPair { ours, theirs, explained: pair.explain() }
    }
}

/// Two versions of a page that are being masked.
pub(super) struct MaskedPair {
    ours: PendingRedo,
    theirs: PendingRedo,
    explained: Result<BTreeSet<Masked>, String>,
}

impl MaskedPair {
    /// Waits for both. Gives why they differ if they do so only where the mask is, and else what
    /// differs. A page that PostgreSQL refuses to mask, such as one of zeros, is equal to none but its
    /// own bytes, which were compared before.
    pub fn finish(self) -> Result<Result<BTreeSet<Masked>, String>> {
        match (self.ours.wait(), self.theirs.wait()) {
            (Ok(ours), Ok(theirs)) => Ok(match differing_bytes(&ours, &theirs, 0) {
                Some(detail) => Err(detail),
                None => self.explained,
            }),
            (Err(RedoError::Refused { message, .. }), _) => Ok(Err(message)),
            (_, Err(RedoError::Refused { message, .. })) => {
                Ok(Err(format!("the other side's: {message}")))
            }
            (Err(error), _) | (_, Err(error)) => Err(masks_failed(error)),
        }
    }
}

/// How much of two pages differs from byte `from` on; `None` if nothing does.
pub(super) fn differing_bytes(ours: &PageImage, theirs: &PageImage, from: usize) -> Option<String> {
    let pairs = ours.iter().zip(theirs.iter()).enumerate().skip(from);
    let mut differing = pairs.filter(|(_, (a, b))| a != b).map(|(at, _)| at);
    let first = differing.next()?;
    let last = differing.clone().next_back().unwrap_or(first);
    let count = differing.count() + 1;
    let bytes = |page: &PageImage| {
        let shown = page.iter().skip(first).take(SHOWN_BYTES.min(last - first + 1));
        shown.map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (ours, theirs) = (bytes(ours), bytes(theirs));
    Some(format!("{count} bytes from byte {first} to {last}: {ours}, and should be {theirs}"))
}

/// Bytes of a difference that are shown.
const SHOWN_BYTES: usize = 8;

fn masks_failed(error: impl std::error::Error) -> Error {
    Error::Program {
        program: "postgres with PostgreSQL's masks".to_owned(),
        detail: crate::control::causes(&error),
    }
}
