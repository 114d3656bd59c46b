//! Processes that outlive us: starting them detached, recognising them, waiting for their end.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::account::Account;
use crate::error::{Error, IoContext, Result};

/// How often we look whether something has happened that nobody tells us about.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(3);

/// A running process that we have recognised by an argument on its command line.
///
/// Numbers are used again, so a number from a file alone proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Running {
    pid: Pid,
}

impl Running {
    /// The process `pid`, if it runs and `argument` is a word of its command line.
    pub(crate) fn recognise(pid: i32, argument: &Path) -> Option<Running> {
        if pid < 1 {
            return None;
        }
        // A process that has ended and is not reaped yet has an empty command line.
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours =
            command_line.split(|byte| *byte == 0).any(|w| w == argument.as_os_str().as_bytes());
        ours.then_some(Running { pid: Pid::from_raw(pid) })
    }

    /// The process whose number is the first line of `pidfile`, under the same condition.
    ///
    /// A missing file, one that holds no number, and a number of somebody else's process all mean
    /// that ours does not run.
    pub(crate) fn from_pidfile(pidfile: &Path, argument: &Path) -> Option<Running> {
        let text = fs::read_to_string(pidfile).ok()?;
        Running::recognise(parse_pid(&text)?, argument)
    }

    /// Waits until the process whose number is the first line of `pidfile` is gone, if it is just
    /// being ended: it is recognised no more then, but has its port and its locks still.
    pub(crate) fn wait_out_dying(pidfile: &Path, timeout: Duration) {
        let text = fs::read_to_string(pidfile).unwrap_or_default();
        if let Some(pid) = parse_pid(&text) {
            wait_until(timeout, || !is_exiting(pid) || !alive(pid));
        }
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid.as_raw()
    }

    pub(crate) fn is_alive(self) -> bool {
        alive(self.pid.as_raw())
    }

    /// Sends `signal`; a process that is gone already is no error.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        match kill(self.pid, signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process is gone; false if it still runs after `timeout`.
    pub(crate) fn wait_gone(self, timeout: Duration) -> bool {
        wait_until(timeout, || !self.is_alive())
    }
}

/// Whether the process exists and has not ended. One that is our own child and has ended is reaped.
fn alive(pid: i32) -> bool {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    match stat_field(pid, STAT_STATE).as_deref() {
        None | Some("X") => false,
        // Other threads may still be on their way out, and the process keeps its files and
        // sockets until the last of them is gone.
        Some("Z") => fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|all| all.count() > 1),
        Some(_) => true,
    }
}

/// Whether the kernel has begun to take the process apart.
fn is_exiting(pid: i32) -> bool {
    let flags = stat_field(pid, STAT_FLAGS).and_then(|text| text.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Fields of `/proc/PID/stat`, counted from 0 after the command name; see proc(5).
const STAT_STATE: usize = 0;
const STAT_FLAGS: usize = 6;
/// Bit of the kernel's `include/linux/sched.h` in `STAT_FLAGS`.
const PF_EXITING: u64 = 4;

fn stat_field(pid: i32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may contain any character.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number).map(str::to_owned)
}

/// The number on the first line, if it is an integer of at least 1.
pub(crate) fn parse_pid(text: &str) -> Option<i32> {
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid >= 1)
}

/// Asks `done` again and again until it says yes; false if it never does within `timeout`.
pub(crate) fn wait_until(timeout: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Starts `command` in a session of its own, with its output appended to `log`, so that it goes on
/// when we and our terminal are gone. With `account`, it runs under that identity from the start.
pub(crate) fn spawn_detached(
    command: &mut Command,
    account: Option<&Account>,
    log: fs::File,
) -> Result<Child> {
    let program = Path::new(command.get_program()).to_owned();
    let log_again = log.try_clone().io("duplicate the log of", &program)?;
    command.stdin(Stdio::null()).stdout(log).stderr(log_again);
    let detach = || {
        // SAFETY: both calls are async-signal-safe and take no memory.
        unsafe {
            libc::umask(0o077);
            if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(detach) };
    if let Some(account) = account {
        account.apply(command);
    }
    command.spawn().io("run", &program)
}

/// Runs a program to its end and gives what it printed; its other words are shown only if it fails.
pub(crate) fn run_program(name: &str, command: &mut Command) -> Result<String> {
    let output = command.output().io("run", command.get_program())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let telling = said.lines().map(str::trim).find(|line| line.contains("error:"));
    let words = plain(telling.or_else(|| last_line(&said)).unwrap_or("it said nothing"));
    Err(Error::Program { program: name.to_owned(), detail: format!("{words} ({})", output.status) })
}

/// The last line of `text` that says anything, for an error message.
pub(crate) fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty())
}

/// The last words of the log at `path` written after its first `start` bytes.
pub(crate) fn last_words(path: &Path, start: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let new = usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or(&bytes);
    let text = String::from_utf8_lossy(new);
    let telling =
        text.lines().rev().map(str::trim).find(|line| {
            ["FATAL", "PANIC", "error:", "CRIT", "ERRO"].iter().any(|w| line.contains(w))
        });
    plain(telling.or_else(|| last_line(&text)).unwrap_or("it said nothing")).to_owned()
}

/// The line without the `program: error: ` that our caller's message says already.
pub(crate) fn plain(line: &str) -> &str {
    line.split_once("error: ").map_or(line, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pids_are_believed_only_if_they_are_numbers_from_one() {
        for (text, pid) in [
            ("1\n", Some(1)),
            (" 42 \n/data\n", Some(42)),
            ("0", None),
            ("-1", None),
            ("", None),
            ("\n7", None),
            ("99999999999", None),
            ("1x", None),
        ] {
            assert_eq!(parse_pid(text), pid, "{text:?}");
        }
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped by the code under test")]
    fn a_process_is_ours_by_its_argument_and_gone_when_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let mut child = Command::new("sh")
            .args(["-c", "read x; :", "sh"])
            .arg(&mark)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Until exec the child still has this test's command line.
        assert!(wait_until(Duration::from_secs(10), || Running::recognise(pid, &mark).is_some()));
        let running = Running::recognise(pid, &mark).unwrap();
        assert_eq!(Running::recognise(pid, dir.path()), None);
        assert!(!running.wait_gone(Duration::from_millis(5)));
        drop(child.stdin.take());
        assert!(running.wait_gone(Duration::from_secs(10)));
        assert_eq!(Running::recognise(pid, &mark), None);
        running.signal(Signal::SIGTERM).unwrap();
    }

    extern "C" fn sleep_for_ever(_: *mut libc::c_void) -> *mut libc::c_void {
        loop {
            // SAFETY: takes nothing and returns when a signal was handled.
            unsafe { libc::pause() };
        }
    }

    /// A killed server's first thread may be gone while others still hold its port and its lock.
    #[test]
    fn a_process_is_gone_when_its_last_thread_is() {
        // SAFETY: the child only makes a thread and ends its first one, without any lock that
        // another thread of this process might have held at the fork.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let mut thread: libc::pthread_t = std::mem::zeroed();
                let no = std::ptr::null_mut();
                libc::pthread_create(&raw mut thread, std::ptr::null(), sleep_for_ever, no);
                libc::syscall(libc::SYS_exit, 0);
            }
            pid
        };
        assert!(pid > 0);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        fs::write(&file, pid.to_string()).unwrap();
        let running = Running { pid: Pid::from_raw(pid) };
        let half_gone = || stat_field(pid, STAT_STATE).as_deref() == Some("Z");
        assert!(wait_until(Duration::from_secs(10), half_gone));
        assert!(running.is_alive());
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            running.signal(Signal::SIGKILL).unwrap();
        });
        Running::wait_out_dying(&file, Duration::from_secs(10));
        assert!(!running.is_alive());
        killer.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_process_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        fs::write(&file, std::process::id().to_string()).unwrap();
        let began = Instant::now();
        Running::wait_out_dying(&file, Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn stale_pidfiles_name_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        assert_eq!(Running::from_pidfile(&file, dir.path()), None);
        for text in ["", "garbage", "0", "-5", "1", &std::process::id().to_string()] {
            fs::write(&file, text).unwrap();
            assert_eq!(Running::from_pidfile(&file, dir.path()), None, "{text:?}");
        }
    }

    #[test]
    fn last_words_prefer_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "old FATAL\nLOG: a\nFATAL: b\nLOG: shut down\n\n").unwrap();
        assert_eq!(last_words(&log, 10), "FATAL: b");
        fs::write(&log, "one\ntwo\n").unwrap();
        assert_eq!(last_words(&log, 0), "two");
    }
}
