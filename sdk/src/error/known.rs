//! The errors that say the same as one of Python's or Celery's exceptions.

use std::error::Error;
use std::io;
use std::num::{ParseFloatError, ParseIntError, TryFromIntError};
use std::panic::Location;
use std::str::{ParseBoolError, Utf8Error};
use std::string::FromUtf8Error;

use super::{Failure, TaskError};
use crate::context::{ProgressError, SendError, StopReason, Stopped};
use crate::json::JsonError;

/// Where Celery's tools look for its limits' exceptions.
const BILLIARD: &str = "billiard.exceptions";
const CELERY: &str = "celery.exceptions";

/// The failure for an error that rwork knows, without its causes.
#[track_caller]
pub(super) fn translate(error: &(dyn Error + 'static)) -> Option<TaskError> {
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        return Some(stop(&stopped.0));
    }
    if let Some(error) = error.downcast_ref::<SendError>() {
        return Some(send(error));
    }
    if let Some(error) = error.downcast_ref::<ProgressError>() {
        return Some(match error {
            ProgressError::Stopped(reason) => stop(reason),
            other => TaskError::new("BackendError", other.to_string()).module("celery.exceptions"),
        });
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(TaskError::new(io_type(error.kind()), error.to_string()));
    }
    if error.is::<JsonError>() || error.is::<serde_json::Error>() {
        return Some(TaskError::new("ValueError", error.to_string()));
    }
    let value_error = error.is::<ParseIntError>()
        || error.is::<ParseFloatError>()
        || error.is::<ParseBoolError>()
        || error.is::<Utf8Error>()
        || error.is::<FromUtf8Error>();
    if value_error {
        return Some(TaskError::new("ValueError", error.to_string()));
    }
    error.is::<TryFromIntError>().then(|| TaskError::new("OverflowError", error.to_string()))
}

/// A stop that the host wished for. Its exception has no arguments in Celery.
#[track_caller]
fn stop(reason: &StopReason) -> TaskError {
    match reason {
        StopReason::SoftTimeLimit => bare(BILLIARD, "SoftTimeLimitExceeded"),
        StopReason::Revoked => {
            TaskError::new("TaskRevokedError", "terminated").module(CELERY).not_retryable()
        }
        StopReason::Shutdown => {
            TaskError::new("WorkerShutdown", "the worker is shutting down").module(CELERY)
        }
        StopReason::Other(reason) => TaskError::new("InterruptedError", reason.clone()),
    }
}

#[track_caller]
fn bare(module: &str, exc_type: &str) -> TaskError {
    TaskError::failed(Failure {
        exc_type: exc_type.to_owned(),
        exc_module: module.to_owned(),
        exc_args: "[]".to_owned(),
        message: String::new(),
        retryable: true,
        location: Some(Location::caller()),
        causes: Vec::new(),
    })
}

#[track_caller]
fn send(error: &SendError) -> TaskError {
    let text = error.to_string();
    match error {
        SendError::Denied(_) => TaskError::new("PermissionError", text).not_retryable(),
        SendError::Invalid(_) | SendError::TooLarge(_) | SendError::Decode(_) => {
            TaskError::new("ValueError", text)
        }
        SendError::Unavailable(_) => TaskError::new("ConnectionError", text),
        SendError::TimedOut => TaskError::new("TimeoutError", text).module(CELERY),
        SendError::Failed(failed) => {
            let mut same =
                bare(failed.exc_module.as_deref().unwrap_or(super::DEFAULT_MODULE), &failed.exc_type);
            same = same.map_failure(|failure| {
                failure.message = failed.message.clone();
                failure.exc_args = failed.exc_args.clone();
            });
            same
        }
        SendError::Stopped(reason) => stop(reason),
        SendError::Other(_) => TaskError::new("OperationalError", text).module("kombu.exceptions"),
    }
}

/// The subclasses of `OSError`.
fn io_type(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "FileNotFoundError",
        io::ErrorKind::PermissionDenied => "PermissionError",
        io::ErrorKind::AlreadyExists => "FileExistsError",
        io::ErrorKind::NotADirectory => "NotADirectoryError",
        io::ErrorKind::IsADirectory => "IsADirectoryError",
        io::ErrorKind::ConnectionRefused => "ConnectionRefusedError",
        io::ErrorKind::ConnectionReset => "ConnectionResetError",
        io::ErrorKind::ConnectionAborted => "ConnectionAbortedError",
        io::ErrorKind::BrokenPipe => "BrokenPipeError",
        io::ErrorKind::TimedOut => "TimeoutError",
        io::ErrorKind::WouldBlock => "BlockingIOError",
        io::ErrorKind::Interrupted => "InterruptedError",
        io::ErrorKind::UnexpectedEof => "EOFError",
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => "ValueError",
        io::ErrorKind::OutOfMemory => "MemoryError",
        _ => "OSError",
    }
}
