//! The database file and the files beside it: their names and modes, and which file stands at the path.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rwork_protocol::service::{Error, RedactedUrl};

use crate::error;

/// Messages and results may be confidential: only the owner reads them.
pub(crate) const MODE: u32 = 0o600;
/// Mode of a folder, for the same reason.
const FOLDER_MODE: u32 = 0o700;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The database.
    pub(crate) database: PathBuf,
    /// SQLite's write-ahead log.
    pub(crate) log: PathBuf,
    /// SQLite's index of its log.
    pub(crate) index: PathBuf,
    /// Locked around each write transaction.
    pub(crate) lock: PathBuf,
    /// A folder with a locked file for each living consumer.
    pub(crate) consumers: PathBuf,
    /// Rung when messages can be taken.
    pub(crate) bell: PathBuf,
    /// Rung when results were stored.
    pub(crate) done: PathBuf,
    /// Given up when the disk is full.
    pub(crate) ballast: PathBuf,
}

/// One file for as long as it exists: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl Files {
    pub(crate) fn beside(database: &Path) -> Self {
        let named = |suffix: &str| {
            let mut name = OsString::from(database);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            database: database.to_owned(),
            log: named("-wal"),
            index: named("-shm"),
            lock: named("-lock"),
            consumers: named("-consumers"),
            bell: named("-bell"),
            done: named("-done"),
            ballast: named("-ballast"),
        }
    }

    /// The folder of them all.
    pub(crate) fn folder(&self) -> &Path {
        self.database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The database file that stands at the path now.
    pub(crate) fn id(&self) -> io::Result<FileId> {
        id_at(&self.database)
    }

    /// True if this file still stands at the path.
    ///
    /// # Errors
    /// When that can't be told: a file that can't be looked at is there all the same.
    pub(crate) fn is_still(&self, id: FileId) -> io::Result<bool> {
        is_still_at(&self.database, Some(id))
    }

    /// True if these still stand beside the path as SQLite's log and its index.
    ///
    /// # Errors
    /// As [`Self::is_still`].
    pub(crate) fn is_still_log(&self, log: Option<FileId>, index: Option<FileId>) -> io::Result<bool> {
        Ok(is_still_at(&self.log, log)? && is_still_at(&self.index, index)?)
    }

    /// SQLite's log that stands beside the path now.
    pub(crate) fn log_id(&self) -> Option<FileId> {
        id_at(&self.log).ok()
    }

    /// SQLite's index of the log that stands beside the path now.
    pub(crate) fn index_id(&self) -> Option<FileId> {
        id_at(&self.index).ok()
    }

    /// Deletes the log of a database that is gone, so that it is not taken for that of the next one: `old`, or whichever
    /// stands beside a missing file. Call it while the lock is held.
    pub(crate) fn discard_log(&self, old: Option<FileId>) {
        let stale = !self.database.exists() || old.is_some() && self.log_id() == old;
        for path in [&self.log, &self.index].into_iter().filter(|_| stale) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "failed to delete the log of a database that is gone");
                }
                _ => {}
            }
        }
    }

    /// Makes the folder where it is missing, and that of the consumers while there is room on the disk.
    pub(crate) fn create_folders(&self, url: &RedactedUrl) -> Result<(), Error> {
        if self.database.is_dir() {
            return Err(error::refused(url, "it is a directory", "name a file in it, such as `rwork.db`"));
        }
        let folder = self.folder();
        fs::create_dir_all(folder).map_err(|error| error::open_failed(url, folder, error))?;
        create_private(&self.consumers).map_err(|error| error::open_failed(url, &self.consumers, error))
    }

    /// Makes an empty database file where there is none, readable by the owner only; SQLite gives its own files the
    /// same mode.
    pub(crate) fn create(&self, url: &RedactedUrl) -> Result<(), Error> {
        open(&self.database).map_err(|error| error::open_failed(url, &self.database, error))?;
        Ok(())
    }
}

fn is_still_at(path: &Path, id: Option<FileId>) -> io::Result<bool> {
    match id_at(path) {
        Ok(there) => Ok(id == Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(id.is_none()),
        Err(error) => Err(error),
    }
}

fn id_at(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|found| FileId(found.dev(), found.ino()))
}

/// Makes a folder with mode 0700 where there is none.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Opens a file for reading and writing, made with mode 0600 when missing.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)
}
