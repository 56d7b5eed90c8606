//! What can go wrong at a broker or a result backend, in words that name no client library: the one error of both traits.

use std::fmt;

/// A driver's own error, below ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A URL whose password cannot be displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// Hides user and password, and parameters that look like one: `redis://***@localhost:6379/0`. Of several URLs with
    /// `;` between them those of each; of what is no URL because nobody has escaped the password, too much rather than
    /// too little.
    pub fn new(urls: &str) -> Self {
        let mut shown = String::with_capacity(urls.len());
        let mut part = String::new();
        for piece in urls.split(';') {
            // A password may have a `;`; a URL of a list begins with its scheme.
            if !part.is_empty() && piece.contains("://") {
                shown.push_str(&redact(&part));
                shown.push(';');
                part.clear();
            } else if !part.is_empty() {
                part.push(';');
            }
            part.push_str(piece);
        }
        shown.push_str(&redact(&part));
        Self(shown)
    }
}

fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let server = match authority.rfind('@') {
        Some(at) => rest.get(at..),
        // The colon is no port's, so that a password begins here, which ends at the last `@`.
        None if !is_host(authority) => {
            Some(rest.rfind('@').and_then(|at| rest.get(at..)).unwrap_or_default())
        }
        None => None,
    };
    let hidden = if server.is_some() { "***" } else { "" };
    let server = server.unwrap_or(rest);
    let (place, query) = server.split_once('?').unwrap_or((server, ""));
    let query: Vec<String> = query.split('&').map(redact_pair).collect();
    let mark = if server.contains('?') { "?" } else { "" };
    format!("{scheme}://{hidden}{place}{mark}{}", query.join("&"))
}

/// Whether this is a host with a port, if there is a colon, and not the beginning of a password.
fn is_host(authority: &str) -> bool {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    behind.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn redact_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if name.contains("pass") || name.contains("secret") => format!("{name}=***"),
        _ => pair.to_owned(),
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

/// A driver's error and what the user can do about it: a source of [`Error::Unreachable`], which has no hint of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Hinted {
    /// What went wrong.
    pub what: String,
    /// What to do; empty: nothing.
    pub hint: String,
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
    /// The store refuses this consumer, or this connection of it: it must be resumed.
    #[error("`{name}` is refused: another connection took its place, or it is known as dead")]
    LeaseLost {
        /// The consumer.
        name: String,
    },
    /// The store's account of a consumer differs from ours: it must be resumed.
    #[error("the broker's account of what is held differs from ours")]
    Doubtful,
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
            Self::Unreachable { .. } | Self::Full { .. } | Self::LeaseLost { .. } | Self::Doubtful => true,
            Self::Act { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } | Self::Full { hint, .. } => Some(hint),
            Self::Unreachable { source, .. } => source
                .downcast_ref::<Hinted>()
                .map(|hinted| hinted.hint.as_str())
                .filter(|hint| !hint.is_empty()),
            Self::Act { source, .. } => source.downcast_ref::<Self>().and_then(Self::hint),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_displayed() {
        for (url, shown) in [
            ("redis://me:p%40ss@host:1/0", "redis://***@host:1/0"),
            ("embedded:./rwork.db", "embedded:./rwork.db"),
            ("redis://host/a@b", "redis://host/a@b"),
            ("redis://host:1/a@b?c=d@e", "redis://host:1/a@b?c=d@e"),
            ("redis://[::1]:1/a@b", "redis://[::1]:1/a@b"),
            ("redis://:a/b@host/0", "redis://***@host/0"),
            ("redis://:a?b@host/0", "redis://***@host/0"),
            ("redis://:a;b@host/0", "redis://***@host/0"),
            ("redis://a/1;redis://:pw@b/1", "redis://a/1;redis://***@b/1"),
            ("sentinel://:pw@a;sentinel://:pw@b", "sentinel://***@a;sentinel://***@b"),
            ("redis://host?password=pw&ssl_cert_reqs=none", "redis://host?password=***&ssl_cert_reqs=none"),
            (
                "redis+socket:///run/redis.sock?virtual_host=2",
                "redis+socket:///run/redis.sock?virtual_host=2",
            ),
            ("redis://:pw", "redis://***"),
        ] {
            assert_eq!(RedactedUrl::new(url).to_string(), shown, "{url}");
        }
    }
}
