//! From SQLite's and the file system's errors to the one that both traits speak.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::ErrorCode;
use rwork_protocol::service::{Error, Hinted, RedactedUrl};

/// What stopped a turn.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A statement failed.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// The lock file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another process kept the file locked for longer than we wait. Nothing was changed.
    #[error("{holder} keeps it locked for more than {} s", .patience.as_secs_f64())]
    Busy {
        /// The process in words.
        holder: String,
        /// Time that was waited.
        patience: Duration,
    },
}

impl Failure {
    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Sql(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Busy { .. } => false,
        }
    }

    /// In the words of the traits; `act` says what was being done.
    pub(crate) fn explain(self, url: &RedactedUrl, act: &str) -> Error {
        if self.is_full() {
            return full(url, "no space left on its disk");
        }
        let code = match &self {
            Self::Sql(error) => error.sqlite_error_code(),
            Self::Io(_) | Self::Busy { .. } => None,
        };
        match code {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => refused(
                url,
                "it is damaged or not a database",
                "restore it from a copy, or move it away to begin with an empty one",
            ),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                refused(url, "it can't be written", "check the owner and mode of the file and its folder")
            }
            Some(ErrorCode::CannotOpen) => {
                refused(url, "it can't be opened", "check the owner and mode of the file and its folder")
            }
            _ => {
                let retryable = matches!(
                    code,
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SystemIoFailure)
                ) || matches!(self, Self::Busy { .. });
                Error::Act { act: format!("{act} at {url}"), retryable, source: Box::new(self) }
            }
        }
    }
}

/// Makes the error of a whole batch retryable: no commit of it is to blame, so that it waits, with its word, until somebody
/// has mended the file.
pub(crate) fn of_no_item(error: Error) -> Error {
    match error {
        Error::Act { act, source, .. } => Error::Act { act, retryable: true, source },
        Error::Refused { ref url, .. } => {
            let act = format!("commit outcomes at {url}");
            Error::Act { act, retryable: true, source: Box::new(error) }
        }
        other => other,
    }
}

/// The error of a full disk.
pub(crate) fn full(url: &RedactedUrl, why: &str) -> Error {
    Error::Full {
        url: url.clone(),
        why: why.to_owned(),
        hint: "free space on that disk, or let workers drain the queues; `rwork purge` deletes messages"
            .to_owned(),
    }
}

/// The error of a file that won't do until somebody mends it.
pub(crate) fn refused(url: &RedactedUrl, why: &str, hint: &str) -> Error {
    Error::Refused { url: url.clone(), why: why.to_owned(), hint: hint.to_owned() }
}

/// The error of a file that could not be made or opened.
pub(crate) fn open_failed(url: &RedactedUrl, path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(url, "no space left on its disk"),
        io::ErrorKind::PermissionDenied => refused(
            url,
            &format!("no permission to open `{shown}`"),
            "check the owner and mode of the file and its folder",
        ),
        io::ErrorKind::ReadOnlyFilesystem => refused(
            url,
            &format!("`{shown}` is on a read-only file system"),
            "choose a path that can be written",
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            refused(url, &format!("a folder of `{shown}` is a file"), "choose another path")
        }
        _ => Error::Unreachable { url: url.clone(), source: Box::new(error) },
    }
}

/// The error of a file that is not at its path any more; `why` it was not made anew, if that is known.
pub(crate) fn moved(url: &RedactedUrl, why: Option<&str>) -> Error {
    let what = match why {
        None => "the file was deleted or replaced while it was in use".to_owned(),
        Some(why) => {
            format!("the file was deleted or replaced while it was in use, and can't be made anew: {why}")
        }
    };
    let hint =
        "what was in it is lost unless you have a copy; keep the file while processes use it".to_owned();
    Error::Unreachable { url: url.clone(), source: Box::new(Hinted { what, hint }) }
}

/// An error and its causes.
pub(crate) fn one_line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// The error of a handle whose threads have ended.
pub(crate) fn closed(url: &RedactedUrl) -> Error {
    Error::Closed { name: url.to_string() }
}
