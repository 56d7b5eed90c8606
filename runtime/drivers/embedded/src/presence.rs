//! The lock by which others see that a consumer lives: one file each, in a folder beside the database.
//!
//! A consumer locks its file before its row is written and keeps the lock until its row is deleted. The kernel frees it
//! when the process dies and never before, however long the process is stopped or starved: a row whose file is free
//! belongs to the dead.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::files::{self, MODE};

/// Tries to make a file that nobody removes before it is locked.
const TRIES_MAX: usize = 50;
/// Pause between two of them.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// A consumer's file, locked.
#[derive(Debug)]
pub(crate) struct Presence {
    path: PathBuf,
    /// Replaced when somebody deleted the file; held for a few system calls.
    file: Mutex<File>,
}

/// Meaning of a consumer's file.
#[derive(Debug)]
pub(crate) enum Sign {
    /// Its consumer lives, or another process is about to free what it held.
    Alive,
    /// Its consumer is dead. Others see it as alive as long as this is kept.
    Dead(Presence),
    /// There is none.
    Missing,
}

impl Presence {
    /// Makes the file of a new consumer and locks it.
    pub(crate) fn take(folder: &Path, owner: i64) -> io::Result<Self> {
        files::create_private(folder)?;
        let path = folder.join(owner.to_string());
        let file = lock_new(&path)?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// True if the file is where others look for it.
    pub(crate) fn stands(&self) -> bool {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        is_at(&file, &self.path)
    }

    /// Makes the file again when somebody deleted it.
    pub(crate) fn restore(&self) -> io::Result<()> {
        if self.stands() {
            return Ok(());
        }
        self.path.parent().map_or(Ok(()), files::create_private)?;
        let file = lock_new(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Deletes the file; its consumer's row must be gone.
    pub(crate) fn remove(&self) {
        if self.stands()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "failed to delete a consumer's lock file");
        }
    }
}

/// Looks whether a consumer of any process lives.
pub(crate) fn look(folder: &Path, owner: i64) -> io::Result<Sign> {
    probe(folder.join(owner.to_string()))
}

/// Deletes the files of consumers that died after their rows were deleted, or before they were written.
pub(crate) fn clean(folder: &Path, has_row: impl Fn(i64) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let owner = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if owner.is_some_and(|owner| !has_row(owner))
            && let Sign::Dead(presence) = probe(entry.path())?
        {
            presence.remove();
        }
    }
    Ok(())
}

fn probe(path: PathBuf) -> io::Result<Sign> {
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sign::Missing),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Sign::Dead(Presence { path, file: Mutex::new(file) })),
        Err(TryLockError::WouldBlock) => Ok(Sign::Alive),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes and locks a file. Between the two steps another process may take it for a dead one's and delete it.
fn lock_new(path: &Path) -> io::Result<File> {
    for _ in 0..TRIES_MAX {
        let made =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
        match made.try_lock() {
            Ok(()) if is_at(&made, path) => return Ok(made),
            // Another process looks whether it is a dead one's: a matter of a moment.
            Ok(()) | Err(TryLockError::WouldBlock) => thread::sleep(TRY_AGAIN),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::WouldBlock))
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_presence_is_a_death_and_a_kept_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("consumers");
        assert!(matches!(look(&folder, 1).unwrap(), Sign::Missing));
        let presence = Presence::take(&folder, 1).unwrap();
        assert!(matches!(look(&folder, 1).unwrap(), Sign::Alive));
        drop(presence);
        let Sign::Dead(dead) = look(&folder, 1).unwrap() else { panic!("a free lock") };
        assert!(matches!(look(&folder, 1).unwrap(), Sign::Alive), "two would free it");
        dead.remove();
        assert!(matches!(look(&folder, 1).unwrap(), Sign::Missing));
    }

    #[test]
    fn a_deleted_file_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::take(folder.path(), 1).unwrap();
        fs::remove_file(folder.path().join("1")).unwrap();
        assert!(!presence.stands());
        presence.restore().unwrap();
        assert!(presence.stands());
        assert!(matches!(look(folder.path(), 1).unwrap(), Sign::Alive));
    }

    #[test]
    fn leftovers_of_the_dead_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Presence::take(folder.path(), 1).unwrap();
        drop(Presence::take(folder.path(), 2).unwrap());
        drop(Presence::take(folder.path(), 3).unwrap());
        clean(folder.path(), |owner| owner == 3).unwrap();
        let left = |owner: i64| folder.path().join(owner.to_string()).exists();
        assert_eq!([1, 2, 3].map(left), [true, false, true]);
        drop(kept);
    }
}
