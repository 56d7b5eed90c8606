//! The lock around each write transaction, and the process that holds it.
//!
//! The lock comes before SQLite's, so that moving the write-ahead log into the file happens under it too. Waiting ends
//! at a deadline: a process that was stopped while it holds the lock must not stop every other without a word. So it is
//! tried for again and again, which alone would starve the unlucky. Therefore a process that waits shows it by a shared
//! lock on the consumers' folder, and whoever unlocks and sees one leaves the next turn to others.

use std::cell::Cell;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use crate::error::Failure;
use crate::files::{self, Files};

/// Pause between two tries. It costs a waiting thread some percent of a core, for as long as another's turn takes.
const TRY_PAUSE: Duration = Duration::from_micros(50);
/// Left to those who wait: two or three of their tries, as the kernel rounds such short pauses up.
const YIELD_PAUSE: Duration = Duration::from_micros(250);
/// SQLite's lock on the index of its log that only a writer holds (`WAL_WRITE_LOCK`), as an offset in that file.
const SQLITE_WRITE_LOCK: &str = "120";

/// The lock. The kernel frees it when its holder dies.
#[derive(Debug)]
pub(crate) struct FairLock {
    file: File,
    /// The consumers' folder: locked, shared, by who waits.
    queue: File,
    path: PathBuf,
    /// SQLite's index of its log, which carries its own lock.
    index: PathBuf,
    patience: Duration,
    /// The next turn is others' until then.
    yield_until: Cell<Option<Instant>>,
}

impl FairLock {
    /// `patience`: how long [`FairLock::hold`] tries.
    pub(crate) fn open(files: &Files, patience: Duration) -> io::Result<Self> {
        Ok(Self {
            file: files::open(&files.lock)?,
            queue: File::open(&files.consumers)?,
            path: files.lock.clone(),
            index: files.index.clone(),
            patience,
            yield_until: Cell::new(None),
        })
    }

    /// Waits for the lock until the deadline; blocks the thread.
    pub(crate) fn hold(&self) -> Result<Held<'_>, Failure> {
        if let Some(until) = self.yield_until.take() {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        if self.try_hold()? {
            return Ok(Held(self));
        }
        // It may fail at the moment when another looks for who waits; that costs a turn.
        let _waiting = Waiting(self.queue.try_lock_shared().is_ok().then_some(&self.queue));
        let began = Instant::now();
        while began.elapsed() < self.patience {
            thread::sleep(TRY_PAUSE);
            if self.try_hold()? {
                return Ok(Held(self));
            }
        }
        Err(self.busy())
    }

    fn try_hold(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::error!(%error, "failed to release the lock beside the embedded database");
        }
        let nobody_waits =
            self.queue.try_lock().and_then(|()| self.queue.unlock().map_err(TryLockError::Error));
        if matches!(nobody_waits, Err(TryLockError::WouldBlock)) {
            self.yield_until.set(Some(Instant::now() + YIELD_PAUSE));
        }
    }

    /// The failure of a statement; of one that SQLite's own lock was kept from, with the name of who holds it.
    pub(crate) fn explain(&self, error: rusqlite::Error) -> Failure {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => self.busy(),
            _ => error.into(),
        }
    }

    fn busy(&self) -> Failure {
        // A stranger inside SQLite's lock keeps whoever holds ours waiting: it is the one to be named.
        let writer = holder(&self.index, "POSIX", SQLITE_WRITE_LOCK);
        let holder = writer.or_else(|| holder(&self.path, "FLOCK", "0"));
        Failure::Busy {
            holder: holder.map_or_else(|| "another process".to_owned(), describe),
            patience: self.patience,
        }
    }
}

/// The lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a FairLock);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// The mark of a process that waits, until it is dropped.
struct Waiting<'a>(Option<&'a File>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.map(File::unlock) {
            tracing::error!(%error, "failed to release the lock on the consumers' folder");
        }
    }
}

/// Another process that holds a write lock of this kind on the file, from this offset on.
fn holder(path: &Path, kind: &str, offset: &str) -> Option<u32> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let ours = std::process::id();
    locks.lines().filter_map(|line| read_lock(line, kind, offset, inode)).find(|process| *process != ours)
}

/// Reads one line of `/proc/locks`, such as `1: FLOCK  ADVISORY  WRITE 28952 fe:00:6005706 0 EOF`. Lines of processes that
/// wait have an arrow before the kind and match nothing.
fn read_lock(line: &str, kind: &str, offset: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let found = words.next()? == kind;
    let (_, write, process) = (words.next()?, words.next()? == "WRITE", words.next()?);
    let (_, of) = words.next()?.rsplit_once(':')?;
    let found = found && write && of.parse() == Ok(inode) && words.next()? == offset;
    // Processes of another pid namespace are shown as 0.
    process.parse().ok().filter(|process| found && *process > 0)
}

/// The process in words: its number, its name, and that it was stopped if it was.
fn describe(process: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // `PID (NAME) STATE …`; a name may have brackets.
    let Some((name, state)) = stat.rsplit_once(") ") else { return format!("process {process}") };
    let name = name.split_once('(').map_or("", |(_, name)| name);
    let stopped = if state.starts_with(['T', 't']) { ", which is stopped" } else { "" };
    format!("process {process} ({name}{stopped})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let flock = "1: FLOCK  ADVISORY  WRITE 28952 fe:00:6005706 0 EOF";
        let posix = "2: POSIX  ADVISORY  WRITE 17 fe:00:77 120 120";
        for (line, kind, offset, inode, expected) in [
            (flock, "FLOCK", "0", 6_005_706, Some(28952)),
            (flock, "FLOCK", "0", 1, None),
            (flock, "POSIX", "0", 6_005_706, None),
            (posix, "POSIX", "120", 77, Some(17)),
            (posix, "POSIX", "121", 77, None),
            ("1: -> FLOCK  ADVISORY  WRITE 28952 fe:00:77 0 EOF", "FLOCK", "0", 77, None),
            ("1: FLOCK  ADVISORY  WRITE 0 fe:00:77 0 EOF", "FLOCK", "0", 77, None),
            ("1: FLOCK  ADVISORY  READ 5 fe:00:77 0 EOF", "FLOCK", "0", 77, None),
            ("", "FLOCK", "0", 77, None),
        ] {
            assert_eq!(read_lock(line, kind, offset, inode), expected, "{line}");
        }
    }

    #[test]
    fn a_lock_that_cannot_be_had_ends_in_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::beside(&folder.path().join("rwork.db"));
        fs::create_dir(&files.consumers).unwrap();
        let patience = Duration::from_millis(5);
        let (first, second) =
            (FairLock::open(&files, patience).unwrap(), FairLock::open(&files, patience).unwrap());
        let held = first.hold().unwrap();
        assert!(matches!(second.hold(), Err(Failure::Busy { .. })));
        drop(held);
        second.hold().unwrap();
    }
}
