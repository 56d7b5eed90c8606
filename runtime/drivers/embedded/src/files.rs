//! The database file and the files beside it: their names, modes and the fair lock.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rwork_protocol::service::{Error, RedactedUrl};

use crate::error;

/// Messages and results may be confidential: only the owner reads them.
const MODE: u32 = 0o600;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The database.
    pub(crate) database: PathBuf,
    /// SQLite's write-ahead log.
    pub(crate) log: PathBuf,
    /// Locked around each write transaction.
    pub(crate) lock: PathBuf,
    /// Rung when messages can be taken.
    pub(crate) bell: PathBuf,
    /// Rung when results were stored.
    pub(crate) done: PathBuf,
    /// Given up when the disk is full.
    pub(crate) ballast: PathBuf,
}

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
            lock: named("-lock"),
            bell: named("-bell"),
            done: named("-done"),
            ballast: named("-ballast"),
        }
    }

    /// Makes the folder and an empty database file where there is none, readable by the owner only; SQLite gives its
    /// own files the same mode.
    pub(crate) fn create(&self, url: &RedactedUrl) -> Result<(), Error> {
        if self.database.is_dir() {
            return Err(error::refused(url, "it is a directory", "name a file in it, such as `rwork.db`"));
        }
        if let Some(folder) = self.database.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| error::open_failed(url, folder, error))?;
        }
        open(&self.database).map_err(|error| error::open_failed(url, &self.database, error))?;
        Ok(())
    }
}

/// Opens a file for reading and writing, made with mode 0600 when missing.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)
}

/// The lock around each write transaction. The kernel queues who waits, in order, and frees it when its holder dies;
/// SQLite's own waiting is by sleeping, and starves the unlucky.
#[derive(Debug)]
pub(crate) struct FairLock(File);

impl FairLock {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        open(path).map(Self)
    }

    /// Waits for the lock; blocks the thread.
    pub(crate) fn hold(&self) -> io::Result<Held<'_>> {
        self.0.lock()?;
        Ok(Held(&self.0))
    }
}

/// The lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::error!(%error, "failed to release the lock beside the embedded database");
        }
    }
}
