//! The seam: each operation that changes a file or a name passes through here on its way to the
//! operating system. In builds with debug assertions a recorder may have been attached to a folder
//! (`faults`), which sees the operations below it and can make them fail; in all other builds there is
//! nothing in between.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[cfg(debug_assertions)]
use std::sync::Arc;

#[cfg(debug_assertions)]
use crate::faults::{FileId, Recorder};

/// A change of a file's content.
#[derive(Clone, Copy)]
pub(crate) enum Edit<'a> {
    /// These bytes, at this offset.
    Write { offset: u64, bytes: &'a [u8] },
    /// This length.
    Length(u64),
}

impl Edit<'_> {
    pub(crate) fn apply(self, file: &fs::File) -> io::Result<()> {
        match self {
            Edit::Write { offset, bytes } => file.write_all_at(bytes, offset),
            Edit::Length(length) => file.set_len(length),
        }
    }
}

/// What stands between us and the names below some folder.
pub(crate) struct Seam {
    #[cfg(debug_assertions)]
    recorder: Option<Arc<Recorder>>,
}

impl Seam {
    /// The one for `path`.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn at(_path: &Path) -> Seam {
        Seam {
            #[cfg(debug_assertions)]
            recorder: Recorder::of(_path),
        }
    }

    pub(crate) fn create<T>(
        &self,
        _path: &Path,
        _empty: bool,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        #[cfg(debug_assertions)]
        if let Some(recorder) = &self.recorder {
            return recorder.create(_path, _empty, act);
        }
        act()
    }

    pub(crate) fn create_dir(
        &self,
        _path: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(recorder) = &self.recorder {
            return recorder.create_dir(_path, act);
        }
        act()
    }

    pub(crate) fn rename(
        &self,
        _from: &Path,
        _to: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(recorder) = &self.recorder {
            return recorder.rename(_from, _to, act);
        }
        act()
    }

    pub(crate) fn link(
        &self,
        _from: &Path,
        _to: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(recorder) = &self.recorder {
            return recorder.link(_from, _to, act);
        }
        act()
    }

    pub(crate) fn remove(
        &self,
        _path: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(recorder) = &self.recorder {
            return recorder.remove(_path, act);
        }
        act()
    }

    pub(crate) fn sync_dir(
        &self,
        _path: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(recorder) = &self.recorder {
            return recorder.sync_dir(_path, act);
        }
        act()
    }
}

/// What stands between us and one open file.
pub(crate) struct FileSeam {
    #[cfg(debug_assertions)]
    recorder: Option<(Arc<Recorder>, FileId)>,
}

impl std::fmt::Debug for FileSeam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileSeam")
    }
}

impl FileSeam {
    /// That of a file that is not changed.
    pub(crate) fn reading() -> FileSeam {
        FileSeam {
            #[cfg(debug_assertions)]
            recorder: None,
        }
    }

    /// That of the file that has just been opened.
    pub(crate) fn of(_path: &Path) -> FileSeam {
        FileSeam {
            #[cfg(debug_assertions)]
            recorder: Recorder::of(_path).and_then(|recorder| {
                let id = recorder.id_of(_path)?;
                Some((recorder, id))
            }),
        }
    }

    pub(crate) fn edit(&self, file: &fs::File, edit: Edit<'_>) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some((recorder, id)) = &self.recorder {
            return recorder.edit(*id, file, edit);
        }
        edit.apply(file)
    }

    pub(crate) fn sync(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some((recorder, id)) = &self.recorder {
            return recorder.sync(*id, act);
        }
        act()
    }
}
