//! Every way a task can end but with a value: failing, and the four wishes (retry, reject, ignore, replace).

mod builtin;
mod known;

use std::error::Error;
use std::fmt;
use std::panic::Location;

use serde::Serialize;

use crate::json;
use crate::{Retry, Signature};

/// The module of exceptions that are neither Python's nor given another one.
pub const DEFAULT_MODULE: &str = "rwork.errors";

/// The most causes that a traceback lists: a chain that points back at itself must end.
const CAUSES_MAX: usize = 32;

/// Why a task did not return a value.
///
/// Any standard error turns into one with `?`. It carries what Celery stores of an exception (type name, module and
/// arguments), so that a Python client which waits for the result sees `ValueError('…')` raised.
///
/// ```
/// use rwork::TaskError;
///
/// fn half(of: i64) -> Result<i64, TaskError> {
///     if of % 2 != 0 {
///         return Err(TaskError::new("ValueError", format!("{of} is odd")));
///     }
///     Ok(of / 2)
/// }
/// assert_eq!(half(3).unwrap_err().to_string(), "ValueError: 3 is odd");
/// ```
pub struct TaskError(Box<Ending>);

/// What a [`TaskError`] stands for.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The task failed.
    Failed(Failure),
    /// It wishes to run again.
    Retry(Retry),
    /// Nothing is to be stored.
    Ignore,
    /// The message is refused.
    Reject {
        /// True: back to the queue; false: to the dead letters.
        requeue: bool,
        /// Why.
        reason: String,
    },
    /// The signature takes the task's place.
    Replace(Signature),
}

/// An exception, as Celery's result backends store one.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) exc_type: String,
    pub(crate) exc_module: String,
    /// One JSON array.
    pub(crate) exc_args: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
    /// Where it was made; none for what the SDK itself finds wrong with a call.
    location: Option<&'static Location<'static>>,
    causes: Vec<String>,
}

impl TaskError {
    /// A failure with a type and a message. The module is `builtins` when Python has an exception of that name, else
    /// [`DEFAULT_MODULE`]; the message is the exception's only argument.
    #[track_caller]
    pub fn new(exc_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self::made_at(Some(Location::caller()), exc_type.into(), message.into())
    }

    /// A failure of the SDK's own: a place in its code would say nothing to the author of a task.
    pub(crate) fn placeless(exc_type: &str, message: impl Into<String>) -> Self {
        Self::made_at(None, exc_type.to_owned(), message.into())
    }

    fn made_at(location: Option<&'static Location<'static>>, exc_type: String, message: String) -> Self {
        let exc_module = if builtin::is_builtin(&exc_type) { "builtins" } else { DEFAULT_MODULE };
        Self::failed(Failure {
            exc_module: exc_module.to_owned(),
            exc_args: one_argument(&message),
            exc_type,
            message,
            retryable: true,
            location,
            causes: Vec::new(),
        })
    }

    /// The same as `?` does, for an error whose type is only known when the program runs (`Box<dyn Error>`): what rwork
    /// knows keeps its type, everything else is a `RuntimeError`.
    #[track_caller]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self::from_named(error, "RuntimeError")
    }

    /// Refuses the message: back to the queue, or to the dead letters.
    pub fn reject(requeue: bool, reason: impl Into<String>) -> Self {
        Self::of(Ending::Reject { requeue, reason: reason.into() })
    }

    /// Ends the task without storing anything: Celery's `Ignore`.
    pub fn ignore() -> Self {
        Self::of(Ending::Ignore)
    }

    /// Puts `signature` in this task's place: it runs under this task's id, and its result becomes this task's result.
    pub fn replace(signature: Signature) -> Self {
        Self::of(Ending::Replace(signature))
    }

    /// Sets the module of the exception. No effect on anything but a failure.
    #[must_use]
    pub fn module(self, module: impl Into<String>) -> Self {
        self.map_failure(|failure| failure.exc_module = module.into())
    }

    /// Sets the exception's arguments: a tuple, an array or a list. Anything else becomes the only argument. No effect on
    /// anything but a failure, nor when the arguments have no JSON.
    #[must_use]
    pub fn args<T: Serialize>(self, arguments: T) -> Self {
        self.map_failure(|failure| match json::to_string(&arguments) {
            Ok(list) if list.starts_with('[') => failure.exc_args = list,
            Ok(one) => failure.exc_args = format!("[{one}]"),
            Err(_) => {}
        })
    }

    /// Puts what was being done before the message: `config.json: no such file`. The message becomes the only argument. No
    /// effect on anything but a failure, nor on one without a message: a passed time limit has no arguments in Celery.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        self.map_failure(|failure| {
            if failure.message.is_empty() {
                return;
            }
            failure.message = format!("{doing}: {}", failure.message);
            failure.exc_args = one_argument(&failure.message);
        })
    }

    /// Never retried automatically, whatever the task's `autoretry_for` says. No effect on anything but a failure.
    #[must_use]
    pub fn not_retryable(self) -> Self {
        self.map_failure(|failure| failure.retryable = false)
    }

    /// Names the error behind this one, and the errors behind that, in the traceback. No effect on anything but a failure.
    #[must_use]
    pub fn caused_by(self, cause: &dyn Error) -> Self {
        self.map_failure(|failure| {
            failure.causes.push(cause.to_string());
            failure.causes.extend(chain(cause));
        })
    }

    /// The exception's type name, when this is a failure.
    pub fn exc_type(&self) -> Option<&str> {
        self.failure().map(|failure| failure.exc_type.as_str())
    }

    /// The exception's module, when this is a failure.
    pub fn exc_module(&self) -> Option<&str> {
        self.failure().map(|failure| failure.exc_module.as_str())
    }

    /// The exception's arguments as one JSON array, when this is a failure.
    pub fn exc_args(&self) -> Option<&str> {
        self.failure().map(|failure| failure.exc_args.as_str())
    }

    /// The failure's message, when this is one.
    pub fn message(&self) -> Option<&str> {
        self.failure().map(|failure| failure.message.as_str())
    }

    /// Whether this is a failure that may be retried automatically.
    pub fn is_retryable(&self) -> bool {
        self.failure().is_some_and(|failure| failure.retryable)
    }

    /// The failure's traceback, when this is one: where it was made, and what caused it.
    pub fn traceback(&self) -> Option<String> {
        self.failure().map(Failure::traceback)
    }

    /// The wish to run again, when this is one.
    pub fn as_retry(&self) -> Option<&Retry> {
        if let Ending::Retry(retry) = &*self.0 { Some(retry) } else { None }
    }

    /// Whether to requeue, and the reason, when this is a refusal.
    pub fn as_reject(&self) -> Option<(bool, &str)> {
        if let Ending::Reject { requeue, reason } = &*self.0 { Some((*requeue, reason)) } else { None }
    }

    /// The signature that takes the task's place, when this is a replacement.
    pub fn as_replace(&self) -> Option<&Signature> {
        if let Ending::Replace(signature) = &*self.0 { Some(signature) } else { None }
    }

    /// Whether this is [`TaskError::ignore`].
    pub fn is_ignore(&self) -> bool {
        matches!(&*self.0, Ending::Ignore)
    }

    pub(crate) fn of(ending: Ending) -> Self {
        Self(Box::new(ending))
    }

    pub(crate) fn into_ending(self) -> Ending {
        *self.0
    }

    fn failed(failure: Failure) -> Self {
        Self::of(Ending::Failed(failure))
    }

    fn failure(&self) -> Option<&Failure> {
        if let Ending::Failed(failure) = &*self.0 { Some(failure) } else { None }
    }

    fn map_failure(mut self, change: impl FnOnce(&mut Failure)) -> Self {
        if let Ending::Failed(failure) = &mut *self.0 {
            change(failure);
        }
        self
    }

    #[track_caller]
    fn from_named(error: &(dyn Error + 'static), otherwise: &str) -> Self {
        // Not `unwrap_or_else`: a closure would be the caller that the traceback shows.
        let made = match known::translate(error) {
            Some(known) => known,
            None => Self::new(otherwise, error.to_string()),
        };
        made.with_causes(chain(error))
    }

    fn with_causes(self, causes: Vec<String>) -> Self {
        self.map_failure(|failure| failure.causes = causes)
    }
}

impl<E: Error + 'static> From<E> for TaskError {
    /// A failure of the error's own type name (`FetchError`), or of the Python exception that says the same: `std::io`'s
    /// "not found" is a `FileNotFoundError`, a number that does not parse is a `ValueError`.
    #[track_caller]
    fn from(error: E) -> Self {
        Self::from_named(&error, short_type_name::<E>())
    }
}

impl From<Retry> for TaskError {
    fn from(retry: Retry) -> Self {
        Self::of(Ending::Retry(retry))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Ending::Failed(failure) if failure.message.is_empty() => f.write_str(&failure.exc_type),
            Ending::Failed(failure) => write!(f, "{}: {}", failure.exc_type, failure.message),
            Ending::Retry(retry) => write!(f, "{retry}"),
            Ending::Ignore => f.write_str("ignored"),
            Ending::Reject { requeue: true, reason } => write!(f, "rejected, back to the queue: {reason}"),
            Ending::Reject { requeue: false, reason } => write!(f, "rejected: {reason}"),
            Ending::Replace(signature) => write!(f, "replaced by {}", signature.task()),
        }
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure() {
            // What a failed `unwrap` in a test shows.
            Some(failure) => f.write_str(&failure.traceback()),
            None => fmt::Display::fmt(self, f),
        }
    }
}

impl Failure {
    /// In Python's form, since that is what Celery's tools show.
    pub(crate) fn traceback(&self) -> String {
        let mut text = String::from("Traceback (most recent call last):\n");
        if let Some(place) = self.location {
            text.push_str(&format!("  File \"{}\", line {}\n", place.file(), place.line()));
        }
        text.push_str(&self.exc_type);
        if !self.message.is_empty() {
            text.push_str(": ");
            text.push_str(&self.message);
        }
        for cause in &self.causes {
            text.push_str("\n  caused by: ");
            text.push_str(cause);
        }
        text
    }
}

/// The JSON array of one string.
fn one_argument(message: &str) -> String {
    let mut list = String::from("[");
    json::write_string(&mut list, message);
    list.push(']');
    list
}

/// The errors behind `error`, nearest first.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| found.len() < CAUSES_MAX) {
        found.push(cause.to_string());
        next = cause.source();
    }
    found
}

/// `FetchError` of `my_plugin::client::FetchError<u8>`.
fn short_type_name<E>() -> &'static str {
    let full = std::any::type_name::<E>();
    let plain = full.split('<').next().unwrap_or(full);
    plain.rsplit("::").next().unwrap_or(plain)
}
