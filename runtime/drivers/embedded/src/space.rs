//! What happens when the disk is full.
//!
//! Settling needs space too: without it a full disk would stop the workers, and nothing would ever become free. So a
//! ballast file lies beside the database. When a settlement finds the disk full the ballast is deleted, and while it is
//! gone producers are refused and workers drain. It comes back when there is room for it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::FallocateFlags;

use crate::files;
use crate::schema::CHECKPOINT_PAGES;

/// Pages in the log before a checkpoint while space is short: 1 MB.
const CHECKPOINT_PAGES_SHORT: u32 = 256;
/// Pages given back to the disk in one step: at most 4 MB, and a log as long.
const VACUUM_PAGES: u32 = 1024;
/// How often to look whether the ballast can come back.
const RECOVER_INTERVAL: Duration = Duration::from_secs(1);

/// The ballast of one database, as one process sees it.
#[derive(Debug)]
pub(crate) struct Space {
    ballast: PathBuf,
    bytes: u64,
    /// When recovery was last tried.
    tried: Option<Instant>,
    /// The connection checkpoints often.
    short: bool,
}

impl Space {
    pub(crate) fn new(ballast: PathBuf, bytes: u64) -> Self {
        Self { ballast, bytes, tried: None, short: false }
    }

    /// Lays the ballast at the first opening; without room for it the file opens all the same, for draining.
    pub(crate) fn prepare(&self) {
        if self.bytes > 0
            && !self.ballast.exists()
            && let Err(error) = lay(&self.ballast, self.bytes)
        {
            tracing::warn!(path = %self.ballast.display(), %error, "no room for the embedded broker's reserve");
        }
    }

    /// Whether the reserve is used up, so that producers must wait.
    pub(crate) fn is_short(&self) -> bool {
        self.bytes > 0 && !self.ballast.exists()
    }

    /// Makes room for a settlement that found the disk full. Call it under the fair lock, outside a transaction.
    pub(crate) fn relieve(&mut self, db: &Connection) {
        match fs::remove_file(&self.ballast) {
            Ok(()) => tracing::warn!(
                path = %self.ballast.display(),
                "disk full: the reserve was given up, publishing is refused until there is room again"
            ),
            Err(error) => tracing::debug!(%error, "disk full, and no reserve to give up"),
        }
        self.tried = Some(Instant::now());
        self.set_short(db, true);
        checkpoint(db);
    }

    /// While the reserve is gone: gives free pages back and lays it again when there is room. Looks once a second.
    /// Call it under the fair lock, outside a transaction.
    pub(crate) fn recover(&mut self, db: &Connection) {
        self.tried = Some(Instant::now());
        self.set_short(db, true);
        vacuum(db);
        checkpoint(db);
        if !self.has_room() || lay(&self.ballast, self.bytes).is_err() {
            return;
        }
        tracing::info!(path = %self.ballast.display(), "there is room again: publishing is accepted");
        self.set_short(db, false);
    }

    /// Whether [`Space::recover`] is worth a try now.
    pub(crate) fn may_recover(&self) -> bool {
        self.is_short() && self.tried.is_none_or(|tried| tried.elapsed() >= RECOVER_INTERVAL)
    }

    /// Another process may have laid the ballast again.
    pub(crate) fn relax(&mut self, db: &Connection) {
        if self.short && !self.is_short() {
            self.set_short(db, false);
        }
    }

    fn set_short(&mut self, db: &Connection, short: bool) {
        let pages = if short { CHECKPOINT_PAGES_SHORT } else { CHECKPOINT_PAGES };
        if let Err(error) = db.pragma_update(None, "wal_autocheckpoint", pages) {
            tracing::debug!(%error, "failed to set the checkpoint interval");
        }
        self.short = short;
    }

    /// Room for the ballast and half of it again, so that it is not given up in the next moment.
    fn has_room(&self) -> bool {
        let folder = self.ballast.parent().filter(|folder| !folder.as_os_str().is_empty());
        let stat = rustix::fs::statvfs(folder.unwrap_or(Path::new(".")));
        stat.is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= self.bytes + self.bytes / 2)
    }
}

/// Takes the blocks, not only the length; a file that could not be filled is deleted.
fn lay(path: &Path, bytes: u64) -> std::io::Result<()> {
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

fn vacuum(db: &Connection) {
    // The pragma frees one page for each row it yields.
    let freed = db.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})")).and_then(|mut step| {
        let mut rows = step.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    });
    if let Err(error) = freed {
        tracing::debug!(%error, "failed to give free pages back");
    }
}
