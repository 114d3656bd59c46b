//! A *window*: memory that a page server and one of its clients share, through which pages go uncopied by the kernel.
//!
//! The server makes it, of a fixed length (sealed, `memfd_create(2)`), and sends the descriptor. It writes pages only to
//! places that a request names which it has not answered yet. The client only reads, a place only when the request
//! that named it has been answered, and names it again only when it is done with what is there. So nobody reads
//! what is being written, unless the other side breaks that rule: then the pages are nonsense, and neither side can
//! fault, for the memory cannot become shorter.
//!
//! All `unsafe` of this crate is in here.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use postgres_formats::BLCKSZ;

/// The most pages that a window has.
pub const WINDOW_PAGES_MAX: u16 = 1024;

fn bytes_of(pages: u16) -> usize {
    usize::from(pages) * BLCKSZ
}

/// The server's side.
#[derive(Debug)]
pub struct ServerWindow {
    memory: MmapRaw,
    pages: u16,
}

impl ServerWindow {
    /// Makes one of `pages` pages, and the descriptor for the client. Only that of it takes memory which is used.
    ///
    /// # Errors
    /// There is not enough memory, which is promised here, or too many files are open.
    pub fn create(pages: u16) -> io::Result<(ServerWindow, OwnedFd)> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(c"zenith-window", flags)?;
        ftruncate(&fd, bytes_of(pages) as i64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        let memory = MmapOptions::new().len(bytes_of(pages)).map_raw(&fd)?;
        Ok((ServerWindow { memory, pages }, fd))
    }

    /// Puts pages one after the other, from `place` on; `false` if that is not within the window.
    pub fn put<P: AsRef<[u8]>>(&self, place: u16, pages: &[P]) -> bool {
        let Some(end) = usize::from(place).checked_add(pages.len()) else { return false };
        if end > usize::from(self.pages) || pages.iter().any(|page| page.as_ref().len() != BLCKSZ) {
            return false;
        }
        for (number, page) in (usize::from(place)..).zip(pages) {
            // SAFETY: page `number` is within the mapping, and as long as what is copied. No reference to this
            // memory exists in this process, and it is not the source, which is the process's own.
            unsafe {
                let to = self.memory.as_mut_ptr().add(number * BLCKSZ);
                std::ptr::copy_nonoverlapping(page.as_ref().as_ptr(), to, BLCKSZ);
            }
        }
        true
    }
}

/// The client's side.
#[derive(Debug)]
pub(crate) struct ClientWindow(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: MmapRaw,
    /// Which pages are asked for, or hold what is still in use.
    // LOCK ORDER: alone, for a few instructions.
    taken: Mutex<Vec<bool>>,
}

impl Shared {
    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientWindow {
    /// The window of `pages` pages behind a descriptor that the server has sent.
    ///
    /// # Errors
    /// It cannot be mapped, or is not what a server makes: long enough, for good.
    pub(crate) fn open(fd: OwnedFd, pages: u16) -> io::Result<ClientWindow> {
        let seals = fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS)?;
        let file = File::from(fd);
        let length = file.metadata()?.len();
        // Otherwise to read it might be a fault one day.
        let is_safe = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK);
        if pages == 0 || pages > WINDOW_PAGES_MAX || !is_safe || length < bytes_of(pages) as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no window"));
        }
        let memory = MmapOptions::new().len(bytes_of(pages)).map_raw_read_only(&file)?;
        let taken = Mutex::new(vec![false; usize::from(pages)]);
        Ok(ClientWindow(Arc::new(Shared { memory, taken })))
    }

    /// Room for so many pages; `None` if there is not enough in one piece.
    pub(crate) fn room(&self, count: u16) -> Option<Room> {
        let mut taken = self.0.taken();
        let count = usize::from(count);
        // The first that is free: what was used last is still in the processor's cache.
        let first = (0..(taken.len() + 1).checked_sub(count)?)
            .find(|first| taken.iter().skip(*first).take(count).all(|taken| !taken))?;
        taken.iter_mut().skip(first).take(count).for_each(|taken| *taken = true);
        Some(Room { window: self.0.clone(), first, count })
    }
}

/// A part of a window that nobody else is given until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    window: Arc<Shared>,
    first: usize,
    count: usize,
}

impl Room {
    /// The first page.
    pub(crate) fn place(&self) -> u16 {
        self.first as u16
    }

    /// How many pages.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The pages in it, to be called when the server has said that it has put them there: it does not touch them
    /// any more then. The room is in use for as long as any part of them is.
    pub(crate) fn filled(self) -> Bytes {
        Bytes::from_owner(Filled(self))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.window.taken();
        taken.iter_mut().skip(self.first).take(self.count).for_each(|taken| *taken = false);
    }
}

struct Filled(Room);

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        let Room { window, first, count } = &self.0;
        // SAFETY: these pages are within the mapping, which lives as long as `window`. The server has answered the
        // request that named them, and writes to no others than those named by requests; they are in none
        // before this room is dropped, and with it what is borrowed here. The mapping cannot be cut short.
        unsafe {
            let from = window.memory.as_ptr().add(first * BLCKSZ);
            std::slice::from_raw_parts(from, count * BLCKSZ)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsRawFd;

    use super::*;

    fn page(byte: u8) -> [u8; BLCKSZ] {
        [byte; BLCKSZ]
    }

    #[test]
    fn what_one_side_puts_the_other_finds() {
        let (server, fd) = ServerWindow::create(8).unwrap();
        let client = ClientWindow::open(fd, 8).unwrap();
        let (first, second) = (client.room(3).unwrap(), client.room(2).unwrap());
        assert!(server.put(first.place(), &[page(1), page(2), page(3)]));
        assert!(server.put(second.place(), &[page(4), page(5)]));
        let (first, second) = (first.filled(), second.filled());
        assert_eq!(first, [page(1), page(2), page(3)].concat());
        assert_eq!(second, [page(4), page(5)].concat());
        // As long as a part is in use all of it is.
        let rest = first.slice(2 * BLCKSZ..);
        drop(first);
        assert_eq!(client.room(3).unwrap().place(), 5);
        assert!(client.room(4).is_none());
        assert_eq!(rest, page(3)[..]);
        drop(rest);
        assert_eq!(client.room(3).unwrap().place(), 0);
        // Nor is it gone with the window.
        drop((client, server));
        assert_eq!(second, [page(4), page(5)].concat());
    }

    #[test]
    fn nothing_is_put_outside() {
        let (server, _) = ServerWindow::create(4).unwrap();
        assert!(server.put(3, &[page(1)]));
        assert!(!server.put(3, &[page(1), page(2)]));
        assert!(!server.put(u16::MAX, &[page(1)]));
        assert!(!server.put(0, &[&page(1)[1..]]));
    }

    #[test]
    fn what_could_become_shorter_is_no_window() {
        let (_server, fd) = ServerWindow::create(4).unwrap();
        assert!(nix::unistd::ftruncate(&fd, 0).is_err(), "it is sealed");
        assert!(ClientWindow::open(fd.try_clone().unwrap(), 5).is_err(), "it is too short");
        assert!(ClientWindow::open(fd.try_clone().unwrap(), 0).is_err());
        assert!(fd.as_raw_fd() >= 0);
        let open = memfd_create(c"open", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&open, bytes_of(4) as i64).unwrap();
        assert!(ClientWindow::open(open, 4).is_err());
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(ClientWindow::open(pipe, 4).is_err());
    }
}
