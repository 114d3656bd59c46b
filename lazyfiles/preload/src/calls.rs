//! The wrapped calls: does the file concern us, and if it does, what besides the real call.

use std::ffi::{CStr, c_char, c_int};
use std::fs;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;

use lazyfiles_core::all_maps;
use lazyfiles_core::data_directory::SegmentPath;
use lazyfiles_core::errno::Errno;
use lazyfiles_core::lazy_file::LazyFile;
use lazyfiles_core::report;
use libc::{iovec, off_t};

use crate::active::{self, Active};
use crate::inside::Inside;
use crate::{open_files, postgres, real};

/// The lazily filled file behind `fd`; `None` for every other file and for our own calls.
fn lazy(fd: c_int) -> Option<(&'static LazyFile, &'static Active, Inside)> {
    let file = open_files::get(fd)?;
    Some((file, active::get()?, Inside::enter()?))
}

/// Where a call without an offset begins.
fn position(fd: c_int, offset: Option<off_t>) -> Result<u64, Errno> {
    let offset = match offset {
        Some(offset) => offset,
        // SAFETY: lseek takes any number as descriptor and touches no memory.
        None => unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) },
    };
    match u64::try_from(offset) {
        Ok(offset) => Ok(offset),
        Err(_) if offset == -1 => Err(Errno::last()),
        Err(_) => Err(Errno(libc::EINVAL)),
    }
}

/// What the C function returns.
fn answer<T: From<i8>>(result: Result<T, Errno>) -> T {
    result.unwrap_or_else(|errno| {
        errno.set();
        T::from(-1)
    })
}

/// Turns the return value of a real call into a result, before `errno` can change.
fn check<T: PartialOrd + From<i8>>(returned: T) -> Result<T, Errno> {
    if returned < T::from(0) { Err(Errno::last()) } else { Ok(returned) }
}

/// Remembers the `errno` of a real call that is made in the middle of our work.
fn remembering<'a>(
    errno: &'a mut Option<Errno>,
    call: impl Fn() -> isize + 'a,
) -> impl FnMut() -> isize + 'a {
    move || {
        let returned = call();
        *errno = (returned < 0).then(Errno::last);
        returned
    }
}

/// Total length in bytes of `count` buffers at `vector`.
///
/// # Safety
/// `vector` must point to `count` valid entries, as the call that it is an argument of demands.
pub(crate) unsafe fn total_length(vector: *const iovec, count: c_int) -> usize {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: demanded of our caller; `add` stays within these entries.
    let lengths = (0..count).map(|n| unsafe { (*vector.add(n)).iov_len });
    lengths.fold(0, usize::saturating_add)
}

/// A read of `length` bytes at `offset`, or at the descriptor's position.
pub(crate) fn read(
    fd: c_int,
    offset: Option<off_t>,
    length: usize,
    real: impl Fn() -> isize,
) -> isize {
    let Some(file) = open_files::get(fd) else { return real() };
    // Nearly all reads end here, and should cost no more than this.
    if let Some(Ok(offset)) = offset.map(u64::try_from)
        && file.is_ready_to_read(offset, length)
    {
        return real();
    }
    let Some((file, active, inside)) = lazy(fd) else { return real() };
    let ready = inside.run(|| {
        let at = position(fd, offset)?;
        if offset.is_none() && file.is_ready_to_read(at, length) {
            return Ok(());
        }
        active.with_process(|process| file.before_read(at, length, process))
    });
    match ready {
        Ok(()) => real(),
        Err(errno) => answer(Err(errno)),
    }
}

/// A write of `length` bytes at `offset`, or at the descriptor's position.
pub(crate) fn write(
    fd: c_int,
    offset: Option<off_t>,
    length: usize,
    real: impl Fn() -> isize,
) -> isize {
    let Some(file) = open_files::get(fd) else { return real() };
    if let Some(Ok(offset)) = offset.map(u64::try_from)
        && file.is_all_present(offset, length)
    {
        return real();
    }
    let Some((file, active, inside)) = lazy(fd) else { return real() };
    answer(inside.run(|| {
        let offset = position(fd, offset)?;
        let mut errno = None;
        let mut write = remembering(&mut errno, real);
        let written =
            active.with_process(|process| file.write(offset, length, process, &mut write))?;
        drop(write);
        errno.map_or(Ok(written), Err)
    }))
}

/// A truncation of the file behind `fd`.
pub(crate) fn ftruncate(fd: c_int, length: off_t, real: impl Fn() -> c_int) -> c_int {
    let Some((file, active, inside)) = lazy(fd) else { return real() };
    answer(inside.run(|| cut(file, active, length, real)))
}

fn cut(
    file: &LazyFile,
    active: &Active,
    length: off_t,
    real: impl Fn() -> c_int,
) -> Result<c_int, Errno> {
    let length = u64::try_from(length).map_err(|_| Errno(libc::EINVAL))?;
    let mut errno = None;
    let mut truncate = remembering(&mut errno, || real() as isize);
    active.with_process(|process| file.truncate(length, process, &mut truncate))?;
    drop(truncate);
    errno.map_or(Ok(0), Err)
}

/// A sync of the file behind `fd`.
pub(crate) fn fsync(fd: c_int, real: impl Fn() -> c_int) -> c_int {
    let Some((file, _, inside)) = lazy(fd) else { return real() };
    answer(inside.run(|| {
        let mut errno = None;
        let mut sync = remembering(&mut errno, || real() as isize);
        file.sync(postgres::durability(), &mut sync)?;
        drop(sync);
        errno.map_or(Ok(0), Err)
    }))
}

/// A sync of the whole file system that `fd` is on.
pub(crate) fn syncfs(fd: c_int, real: impl Fn() -> c_int) -> c_int {
    let Some(active) = active::get() else { return real() };
    let Some(inside) = Inside::enter() else { return real() };
    answer(inside.run(|| {
        let device = stat(fd)?.dev();
        let mut sync = || check(real()).map(|_| ());
        all_maps::sync(&active.data, &active.presence, active.boot, device, &mut sync)?;
        Ok(0)
    }))
}

fn stat(fd: c_int) -> Result<fs::Metadata, Errno> {
    // SAFETY: the descriptor is our caller's and stays open: the wrapper never drops the file.
    let file = std::mem::ManuallyDrop::new(unsafe { fs::File::from_raw_fd(fd) });
    Ok(file.metadata()?)
}

/// The file of a relation or an SLRU that `path`, seen from the folder `folder`, names.
///
/// # Safety
/// `path` must be null or a C string.
unsafe fn segment(active: &Active, folder: c_int, path: *const c_char) -> Option<SegmentPath> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string as demanded of our caller.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if folder == libc::AT_FDCWD || path.first() == Some(&b'/') {
        return active.data.segment(path);
    }
    let mut full = fs::read_link(format!("/proc/self/fd/{folder}")).ok()?.into_os_string();
    full.push("/");
    full.push(std::ffi::OsStr::from_bytes(path));
    active.data.segment(&full.into_vec())
}

/// An opening of `path` with `flags`; `real` opens it with the flags that it is given.
///
/// # Safety
/// `path` must be null or a C string.
pub(crate) unsafe fn open(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    real: impl Fn(c_int) -> c_int,
) -> c_int {
    let Some(active) = active::get() else { return real(flags) };
    let Some(inside) = Inside::enter() else { return real(flags) };
    answer(inside.run(|| {
        // SAFETY: as demanded of our caller.
        let Some(segment) = (unsafe { segment(active, folder, path) }) else {
            let fd = check(real(flags))?;
            open_files::remove(fd);
            return Ok(fd);
        };
        if flags & libc::O_CREAT != 0 {
            remove_stale_map(active, &segment)?;
        }
        let fd = check(real(flags & !libc::O_TRUNC))?;
        open_files::remove(fd);
        adopt(active, &segment, fd, flags).inspect_err(|_| {
            // SAFETY: opened above, and known to nobody else.
            unsafe { real::close(fd) };
        })?;
        Ok(fd)
    }))
}

/// A map without its file is left over from a crash between the removal of the two. The file that
/// is about to be created has nothing to do with it.
fn remove_stale_map(active: &Active, segment: &SegmentPath) -> Result<(), Errno> {
    let map = active.data.presence_map(segment);
    if !map.exists() {
        return Ok(());
    }
    match fs::symlink_metadata(active.data.path(segment)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    match fs::remove_file(&map) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes the newly opened descriptor of a relation's or an SLRU's file one of ours if it has a presence map.
fn adopt(active: &Active, segment: &SegmentPath, fd: c_int, flags: c_int) -> Result<(), Errno> {
    let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let map = active.data.presence_map(segment);
    // SAFETY: both take any number as descriptor, and were given one that is open.
    let truncate = || unsafe { real::ftruncate(fd, 0) };
    let file = match LazyFile::new(fd, writable, segment.file, &map, active.boot) {
        Ok(Some(file)) => file,
        Ok(None) => {
            // Maps go after their files: a file that still has its name is an ordinary one.
            if stat(fd)?.nlink() == 0 {
                return Err(Errno(libc::ENOENT));
            }
            if flags & libc::O_TRUNC != 0 {
                check(truncate())?;
            }
            return Ok(());
        }
        Err(error) => {
            report::line(&report::chain(&error));
            return Err(Errno(libc::EIO));
        }
    };
    if flags & libc::O_APPEND != 0 {
        report::line(&format!("{} was opened for appending", segment.relative));
        return Err(Errno(libc::EINVAL));
    }
    if flags & libc::O_TRUNC != 0 {
        cut(&file, active, 0, truncate)?;
    }
    open_files::put(fd, file).map_err(|_| Errno(libc::EMFILE))
}

/// A truncation of the file called `path`.
///
/// # Safety
/// `path` must be null or a C string.
pub(crate) unsafe fn truncate(
    path: *const c_char,
    length: off_t,
    real: impl Fn() -> c_int,
) -> c_int {
    let Some(active) = active::get() else { return real() };
    let Some(inside) = Inside::enter() else { return real() };
    answer(inside.run(|| {
        // SAFETY: as demanded of our caller.
        let segment = unsafe { segment(active, libc::AT_FDCWD, path) };
        match segment {
            Some(segment) if active.data.presence_map(&segment).exists() => {
                // SAFETY: `path` is not null, or it would have named nothing.
                let fd = check(unsafe { real::open(path, libc::O_RDWR | libc::O_CLOEXEC, 0) })?;
                // SAFETY: truncates the file opened above, which nobody else closes.
                let truncate = || unsafe { real::ftruncate(fd, length) };
                let map = active.data.presence_map(&segment);
                let result = match LazyFile::new(fd, true, segment.file, &map, active.boot) {
                    Ok(Some(file)) => cut(&file, active, length, truncate),
                    Ok(None) => check(truncate()),
                    Err(error) => {
                        report::line(&report::chain(&error));
                        Err(Errno(libc::EIO))
                    }
                };
                // SAFETY: opened above, and known to nobody else.
                unsafe { real::close(fd) };
                result
            }
            _ => check(real()),
        }
    }))
}

/// A removal of the file called `path`: the file first, then its map (R8 in SAFETY.md).
///
/// # Safety
/// `path` must be null or a C string.
pub(crate) unsafe fn unlink(folder: c_int, path: *const c_char, real: impl Fn() -> c_int) -> c_int {
    let Some(active) = active::get() else { return real() };
    let Some(inside) = Inside::enter() else { return real() };
    answer(inside.run(|| {
        // SAFETY: as demanded of our caller.
        let segment = unsafe { segment(active, folder, path) };
        check(real())?;
        if let Some(segment) = segment {
            match fs::remove_file(active.data.presence_map(&segment)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // The file is gone, as was asked; who creates it anew will try again.
                    report::line(&format!(
                        "could not remove the presence map of {}: {error}",
                        segment.relative
                    ));
                }
                _ => {}
            }
        }
        Ok(0)
    }))
}

/// Advice about the bytes from `offset` on.
pub(crate) fn fadvise(
    fd: c_int,
    offset: off_t,
    length: off_t,
    advice: c_int,
    real: impl Fn() -> c_int,
) -> c_int {
    if advice != libc::POSIX_FADV_WILLNEED {
        return real();
    }
    let Some((file, active, inside)) = lazy(fd) else { return real() };
    let (Ok(start), Ok(bytes)) = (u64::try_from(offset), usize::try_from(length)) else {
        return real();
    };
    if file.is_all_present(start, bytes) {
        return real();
    }
    // It is no more than a hint: what fails here is tried again when the bytes are read.
    let _ = inside.run(|| {
        active.with_process(|process| file.will_need(start, bytes, process));
        Ok(())
    });
    0
}

/// A closing of `fd`.
pub(crate) fn close(fd: c_int, real: impl Fn() -> c_int) -> c_int {
    // Before the number is free to be given to another file.
    open_files::remove(fd);
    real()
}

/// A copy between two descriptors in the kernel, which would not see what is absent. Those who
/// want it must cope with file systems that cannot do it.
pub(crate) fn copy_file_range(from: c_int, to: c_int, real: impl Fn() -> isize) -> isize {
    if open_files::get(from).is_some() || open_files::get(to).is_some() {
        return answer(Err(Errno(libc::EXDEV)));
    }
    real()
}
