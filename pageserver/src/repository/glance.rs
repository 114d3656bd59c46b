//! `Glance`: which layers a timeline has, without loading it: what its manifest says.
//!
//! It is enough to tell whether a collection may remove something, so that of many timelines few are loaded. A
//! manifest is read again only when it has been changed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postgres_formats::{Lsn, TimelineId, Timestamp};

use super::holds::needed_by;
use super::scan::timeline_dir;
use super::{Outlook, Repository};
use crate::timeline::manifest::{Manifest, Origin};
use crate::timeline::{Collected, LayerFile, Needed, horizon_of, unneeded};

/// What a manifest says about layers.
pub(super) struct Glance {
    /// The layers; their sizes are not known.
    files: Vec<LayerFile>,
    /// Where the last of them ends.
    end: Lsn,
    is_root: bool,
    detaching: bool,
    start: Lsn,
}

/// What was read, and of which file: when that was changed, and how long it is.
type Seen = BTreeMap<TimelineId, (SystemTime, u64, Option<Arc<Glance>>)>;

/// What manifests said when they were last looked at.
// LOCK ORDER: a leaf, held for a moment.
#[derive(Default)]
pub(super) struct Glances(Mutex<Seen>);

impl Glance {
    fn of(manifest: &Manifest) -> Option<Glance> {
        let names = manifest.layered.deltas.iter().chain(&manifest.layered.images);
        let files: Vec<LayerFile> = names.filter_map(|name| LayerFile::of_name(name)).collect();
        if files.is_empty() {
            return None;
        }
        Some(Glance {
            files,
            end: manifest.layered.end,
            is_root: !matches!(manifest.origin, Origin::Ancestor(_)),
            detaching: manifest.detaching,
            start: manifest.start,
        })
    }
}

impl Repository {
    /// What the manifest of a timeline says; `None` if nothing can go of what it has, or it cannot be read.
    fn glance(&self, id: TimelineId) -> Option<Arc<Glance>> {
        let dir = timeline_dir(&self.dir, id);
        let data = fs::metadata(dir.join("manifest")).ok()?;
        let (changed, length) = (data.modified().ok()?, data.len());
        if let Some((seen, bytes, glance)) = self.glances.0.lock().get(&id)
            && (*seen, *bytes) == (changed, length)
        {
            return glance.clone();
        }
        let glance = Manifest::read(&dir).ok().and_then(|m| Glance::of(&m)).map(Arc::new);
        self.glances.0.lock().insert(id, (changed, length, glance.clone()));
        glance
    }

    /// Forgets what timelines said that are not among these, which are in order.
    pub(super) fn forget_glances(&self, but: &[TimelineId]) {
        self.glances.0.lock().retain(|id, _| but.binary_search(id).is_ok());
    }

    /// What a collection of a timeline would remove at least, and who holds the rest, without loading it. `None`:
    /// nothing can go, whoever needs what.
    pub(super) fn outlook_at_a_glance(
        &self,
        id: TimelineId,
        tags: &[super::Tag],
    ) -> Option<Outlook> {
        let glance = self.glance(id)?;
        let loaded = self.loaded_timeline(id);
        let mut files = match &loaded {
            Some(timeline) => timeline.layer_files(),
            None => glance.files.clone(),
        };
        // Whatever else is needed, the end of a branch is: often that tells that nothing can go.
        let is_kept = self.branch_of(id).is_none();
        let least: Vec<Needed> = (!is_kept).then(|| Needed::since(Lsn::MAX)).into_iter().collect();
        if unneeded(&files, &least).is_empty() {
            return None;
        }
        let layers = timeline_dir(&self.dir, id).join("layers");
        let mut changed = BTreeMap::new();
        if loaded.is_none() {
            for file in &mut files {
                let data = fs::metadata(layers.join(&file.name)).ok()?;
                file.bytes = data.len();
                changed.insert(file.name.clone(), data.modified().ok()?);
            }
        }
        let windows = match &loaded {
            Some(timeline) => self.windows_on(timeline).ok()?,
            None => {
                // What is in a file that was written before is older.
                let begins_before = |time: Timestamp| -> Result<Lsn, ()> {
                    let limit = u64::try_from(time.as_unix_micros()).unwrap_or(0);
                    let limit = SystemTime::UNIX_EPOCH + Duration::from_micros(limit);
                    let old = files.iter().filter(|file| {
                        !file.is_image && changed.get(&file.name).is_some_and(|at| *at <= limit)
                    });
                    Ok(old.map(|file| file.end).max().unwrap_or(Lsn::INVALID))
                };
                let up_to_end = |lsn: Lsn| Ok(lsn.min(glance.end));
                self.windows(id, glance.end, begins_before, up_to_end).ok()?
            }
        };
        let beginning = match &loaded {
            Some(timeline) => timeline.beginning(),
            None => {
                let keeps = glance.is_root && self.layers.options.keep_wal_bytes.is_none();
                (keeps || glance.detaching).then_some(glance.start)
            }
        };
        let holds = self.holds(id, windows, tags, beginning);
        let needed = needed_by(&holds);
        let horizon = horizon_of(&needed);
        let collected = Collected { horizon, layers: unneeded(&files, &needed) };
        Some(Outlook::of(&files, holds, collected))
    }
}
