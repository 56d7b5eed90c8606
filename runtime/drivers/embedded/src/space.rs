//! What happens when the disk is full.
//!
//! Settling needs space too: without it a full disk would stop the workers, and nothing would ever become free. Two
//! things keep room for it. Producers are refused while the free space is less than what moving the write-ahead log into
//! the file may take. And should others fill the disk, a ballast file beside the database is deleted when a settlement
//! finds no room; it is twice as large as the log, so that the log can be emptied with what it frees. While room is
//! short free pages are given back to the disk, and the ballast comes back when it fits again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::FallocateFlags;

use crate::files::{self, Files};

const PAGE_BYTES: u64 = 4096;
/// Pages in the log before a commit moves them into the file: 4 MB. More gains nothing that could be measured, and needs
/// a larger ballast.
const CHECKPOINT_PAGES: u64 = 1000;
/// The same while room is short, or with a tiny ballast.
const CHECKPOINT_PAGES_MIN: u64 = 64;
/// Free space for the transactions that come before the next look.
const SLACK_BYTES: u64 = 1 << 20;
/// Free pages given back in one step, which needs as much room in the log.
const VACUUM_PAGES: u32 = 128;
/// Steps in one recovery, which others wait for.
const VACUUM_STEPS: usize = 32;
/// How often recovery is tried.
const RECOVER_INTERVAL: Duration = Duration::from_secs(1);

/// The room around one database, as one process sees it.
#[derive(Debug)]
pub(crate) struct Space {
    files: Files,
    /// Size of the ballast; 0: no care is taken.
    bytes: u64,
    /// When recovery was last tried.
    tried: Option<Instant>,
    /// The log is kept short.
    short: bool,
}

impl Space {
    pub(crate) fn new(files: Files, bytes: u64) -> Self {
        Self { files, bytes, tried: None, short: false }
    }

    /// Lays the ballast at the first opening; without room for it the file opens all the same, for draining.
    pub(crate) fn prepare(&mut self, db: &Connection) {
        self.keep_log_short(db, false);
        if self.bytes > 0
            && !self.files.ballast.exists()
            && let Err(error) = lay(&self.files.ballast, self.bytes)
        {
            tracing::warn!(path = %self.files.ballast.display(), %error, "no room for the embedded broker's reserve");
        }
    }

    /// Whether producers must wait.
    pub(crate) fn is_short(&self) -> bool {
        self.bytes > 0 && (!self.files.ballast.exists() || self.free() < self.needed())
    }

    /// Makes room for a settlement that found the disk full. Call it under the fair lock, outside a transaction.
    pub(crate) fn relieve(&mut self, db: &Connection) {
        match fs::remove_file(&self.files.ballast) {
            Ok(()) => tracing::warn!(
                path = %self.files.ballast.display(),
                "disk full: the reserve was given up, publishing is refused until there is room again"
            ),
            Err(error) => tracing::debug!(%error, "disk full, and no reserve to give up"),
        }
        self.tried = Some(Instant::now());
        self.keep_log_short(db, true);
        checkpoint(db);
    }

    /// Whether [`Space::recover`] is worth a try now.
    pub(crate) fn may_recover(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() >= RECOVER_INTERVAL) && self.is_short()
    }

    /// Gives free pages back, and lays the ballast again when it fits. Call it under the fair lock, outside a
    /// transaction.
    pub(crate) fn recover(&mut self, db: &Connection) {
        self.tried = Some(Instant::now());
        self.keep_log_short(db, true);
        checkpoint(db);
        for _ in 0..VACUUM_STEPS {
            if !vacuum(db) {
                break;
            }
            checkpoint(db);
        }
        // Room for half of it again, so that it is not given up in the next moment.
        if !self.files.ballast.exists() && self.free() >= self.bytes + self.bytes / 2 {
            match lay(&self.files.ballast, self.bytes) {
                Ok(()) => tracing::info!("there is room for the embedded broker's reserve again"),
                Err(error) => tracing::debug!(%error, "no room for the reserve yet"),
            }
        }
    }

    /// Back to long logs when there is plenty of room. Cheap unless the log is kept short.
    pub(crate) fn relax(&mut self, db: &Connection) {
        if self.short && !self.is_short() && self.free() >= self.bytes {
            self.keep_log_short(db, false);
        }
    }

    fn keep_log_short(&mut self, db: &Connection, short: bool) {
        let pages = match self.bytes / 2 / PAGE_BYTES {
            _ if short => CHECKPOINT_PAGES_MIN,
            0 => CHECKPOINT_PAGES,
            half => half.clamp(CHECKPOINT_PAGES_MIN, CHECKPOINT_PAGES),
        };
        if let Err(error) = db.pragma_update(None, "wal_autocheckpoint", pages as i64) {
            tracing::debug!(%error, "failed to set the checkpoint interval");
        }
        self.short = short;
    }

    /// What must be free before a producer may write: each page of the log may become one of the file.
    fn needed(&self) -> u64 {
        let log = fs::metadata(&self.files.log).map_or(0, |log| log.len());
        log + SLACK_BYTES.min(self.bytes / 4)
    }

    /// Bytes that are free on the disk; plenty when it can't be told.
    fn free(&self) -> u64 {
        let folder = self.files.database.parent().filter(|folder| !folder.as_os_str().is_empty());
        match rustix::fs::statvfs(folder.unwrap_or(Path::new("."))) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            Err(_) => u64::MAX,
        }
    }
}

/// Takes the blocks, not only the length; a file that could not be filled is deleted.
fn lay(path: &PathBuf, bytes: u64) -> std::io::Result<()> {
    let file = files::open(path)?;
    let filled = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => fill(&file, bytes),
        other => other.map_err(Into::into),
    };
    if filled.is_err() {
        fs::remove_file(path)?;
    }
    filled
}

fn fill(mut file: &fs::File, bytes: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0x5a), bytes), &mut file)?;
    file.sync_all()
}

fn checkpoint(db: &Connection) {
    let done = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    if let Err(error) = done {
        tracing::debug!(%error, "failed to empty the write-ahead log");
    }
}

/// Gives some free pages back; false when there are none, or no room to do it.
fn vacuum(db: &Connection) -> bool {
    let step = || -> rusqlite::Result<bool> {
        if db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(false);
        }
        // The pragma frees one page for each row it yields.
        let mut vacuum = db.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    };
    step().unwrap_or_else(|error| {
        tracing::debug!(%error, "failed to give free pages back");
        false
    })
}
