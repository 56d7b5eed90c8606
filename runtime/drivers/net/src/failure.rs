//! Why there is no connection.

use rwork_protocol::service::{Error, Hinted, RedactedUrl};

/// Why there is no connection. Cloned to everybody who waited for it.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It may come by itself.
    Unreachable {
        /// The server, for people.
        url: RedactedUrl,
        /// What went wrong, and what to do.
        why: Hinted,
    },
    /// Somebody must mend something.
    Refused {
        /// The server, for people.
        url: RedactedUrl,
        /// What went wrong.
        why: String,
        /// What to do; empty: nothing.
        hint: String,
    },
}

impl Failure {
    /// It may come by itself.
    pub fn unreachable(url: &RedactedUrl, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unreachable { url: url.clone(), why: Hinted { what: why.into(), hint: hint.into() } }
    }

    /// Somebody must mend something.
    pub fn refused(url: &RedactedUrl, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { url: url.clone(), why: why.into(), hint: hint.into() }
    }

    /// Of two failures the one that tells more: what somebody must mend, or else the first.
    pub fn or_worse(told: Option<Self>, other: Self) -> Self {
        match told {
            None => other,
            Some(Self::Unreachable { .. }) if matches!(other, Self::Refused { .. }) => other,
            Some(told) => told,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable { url, why } => Self::Unreachable { url, source: Box::new(why) },
            Failure::Refused { url, why, hint } => Self::Refused { url, why, hint },
        }
    }
}

/// An error and everything below it, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let below = std::iter::successors(error.source(), |error| error.source());
    below.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
