//! What can go wrong at a broker or a result backend, in words that name no client library: the one error of both traits.

use std::fmt;

/// A driver's own error, below ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A URL whose password cannot be displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// Hides user and password: `redis://***@localhost:6379/0`.
    pub fn new(url: &str) -> Self {
        let Some((scheme, rest)) = url.split_once("://") else { return Self(url.to_owned()) };
        let authority_end = rest.find('/').unwrap_or(rest.len());
        match rest.get(..authority_end).and_then(|authority| authority.rfind('@')) {
            Some(at) => Self(format!("{scheme}://***{}", rest.get(at..).unwrap_or_default())),
            None => Self(url.to_owned()),
        }
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A broker's or a backend's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL can't be used; found before anything was tried.
    #[error("expected {expected}, got `{url}`")]
    Url {
        /// The URL.
        url: RedactedUrl,
        /// What would do.
        expected: String,
    },
    /// No connection, or it was lost. Trying again is right.
    #[error("failed to reach {url}")]
    Unreachable {
        /// The server or file.
        url: RedactedUrl,
        /// The driver's error.
        source: BoxError,
    },
    /// The server or file refuses us (credentials, permissions, version). Trying again is right only once it is mended.
    #[error("{url} refused: {why}")]
    Refused {
        /// The server or file.
        url: RedactedUrl,
        /// In the server's words.
        why: String,
        /// What to do.
        hint: String,
    },
    /// No room for more: disk, memory or a quota is full. Nothing of the batch was accepted.
    #[error("{url} is full: {why}")]
    Full {
        /// The server or file.
        url: RedactedUrl,
        /// What is full.
        why: String,
        /// What to do.
        hint: String,
    },
    /// A message is larger than the limit.
    #[error("expected a message of at most {limit} bytes, got {size}")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Its size, in bytes.
        size: usize,
    },
    /// The broker has no such feature.
    #[error("{url} can't {what}")]
    Unsupported {
        /// The server or file.
        url: RedactedUrl,
        /// The feature.
        what: String,
    },
    /// Our lease ran out: others may run what we hold.
    #[error("the lease of `{name}` ran out")]
    LeaseLost {
        /// The consumer.
        name: String,
    },
    /// Closed by us.
    #[error("`{name}` is closed")]
    Closed {
        /// What was closed.
        name: String,
    },
    /// One act failed; the connection may be well.
    #[error("failed to {act}")]
    Act {
        /// What was being done, with its object.
        act: String,
        /// Whether trying again can help.
        retryable: bool,
        /// The driver's error.
        source: BoxError,
    },
}

impl Error {
    /// Whether the same call can succeed later without anybody mending anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Full { .. } | Self::LeaseLost { .. } => true,
            Self::Act { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } | Self::Full { hint, .. } => Some(hint),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_displayed() {
        assert_eq!(RedactedUrl::new("redis://me:p%40ss@host:1/0").to_string(), "redis://***@host:1/0");
        assert_eq!(RedactedUrl::new("embedded:./rwork.db").to_string(), "embedded:./rwork.db");
        assert_eq!(RedactedUrl::new("redis://host/a@b").to_string(), "redis://host/a@b");
    }
}
