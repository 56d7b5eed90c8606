//! The wish to run again.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::TaskError;
use crate::error::{Ending, Failure};
use crate::json;

/// A wish to run again later, made with [`crate::Context::retry`] and returned as an error.
///
/// ```
/// # use std::time::Duration;
/// # use rwork::{Context, TaskError};
/// fn poll(ctx: &Context) -> Result<(), TaskError> {
///     Err(ctx.retry().delay(Duration::from_secs(30)).max_retries(10).into())
/// }
/// ```
#[derive(Debug, Default)]
pub struct Retry {
    pub(crate) delay: Option<Duration>,
    pub(crate) limit: RetryLimit,
    pub(crate) cause: Option<Failure>,
    /// The next attempt's args and kwargs as JSON, when it gets others.
    pub(crate) input: Option<(String, String)>,
    /// Members of a JSON object, each `"name":value`.
    options: Vec<String>,
}

/// How often a task may be retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryLimit {
    /// As the task declares.
    #[default]
    Inherit,
    /// For ever.
    Unlimited,
    /// So many attempts after the first.
    AtMost(u32),
}

impl Retry {
    /// How long to wait, to the millisecond; without it: the task's own delay or back-off.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Allows so many attempts after the first, whatever the task declares.
    #[must_use]
    pub fn max_retries(mut self, most: u32) -> Self {
        self.limit = RetryLimit::AtMost(most);
        self
    }

    /// Allows any number of attempts.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.limit = RetryLimit::Unlimited;
        self
    }

    /// What went wrong. It becomes the task's failure when no attempt is left.
    #[must_use]
    #[track_caller]
    pub fn cause(mut self, cause: impl Into<TaskError>) -> Self {
        if let Ending::Failed(failure) = cause.into().into_ending() {
            self.cause = Some(failure);
        }
        self
    }

    /// Gives the next attempt other arguments: a tuple or a list, and a map or a struct.
    ///
    /// # Errors
    ///
    /// `ValueError` if one of them has no JSON, or is not of that shape.
    pub fn with_input(mut self, args: impl Serialize, kwargs: impl Serialize) -> Result<Self, TaskError> {
        let (args, kwargs) = (json::to_string(&args)?, json::to_string(&kwargs)?);
        // The unit is Python's empty tuple, and no keywords at all.
        let args = if args == "null" { "[]".to_owned() } else { args };
        let kwargs = if kwargs == "null" { "{}".to_owned() } else { kwargs };
        if !args.starts_with('[') || !kwargs.starts_with('{') {
            return Err(TaskError::new(
                "ValueError",
                "expected a list of arguments and a map of keyword arguments",
            ));
        }
        self.input = Some((args, kwargs));
        Ok(self)
    }

    /// Sends the next attempt to another queue.
    #[must_use]
    pub fn queue(self, queue: &str) -> Self {
        self.option("queue", queue)
    }

    /// Sets a message option of the next attempt by Celery's name (`priority`, `expires`, `headers`, …). No effect when
    /// the value has no JSON.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = json::to_string(&value) {
            let mut member = String::new();
            json::write_string(&mut member, name);
            member.push(':');
            member.push_str(&value);
            self.options.push(member);
        }
        self
    }

    /// The delay that was asked for.
    pub fn requested_delay(&self) -> Option<Duration> {
        self.delay
    }

    /// The limit that was asked for.
    pub fn requested_limit(&self) -> RetryLimit {
        self.limit
    }

    /// The options as one JSON object; empty when there is none.
    pub fn requested_options(&self) -> String {
        if self.options.is_empty() { String::new() } else { format!("{{{}}}", self.options.join(",")) }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("retry")?;
        if let Some(delay) = self.delay {
            write!(f, " in {delay:?}")?;
        }
        if let Some(cause) = &self.cause {
            write!(f, ": {}: {}", cause.exc_type, cause.message)?;
        }
        Ok(())
    }
}
