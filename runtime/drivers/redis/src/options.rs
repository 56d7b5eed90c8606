//! How to reach a server and how to use it: options, their defaults and limits.

#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::time::Duration;

use rwork_protocol::service::{Error, RedactedUrl};

use crate::url::{self, Servers};

pub use transport::{QueueOrder, SentinelOptions, Transport};

/// Long enough for a starved renewal to come in time, short enough that a dead worker's messages move within seconds.
const LEASE: Duration = Duration::from_secs(10);
/// Below this, round trips and scheduling delays alone would lose leases.
const LEASE_MIN: Duration = Duration::from_millis(100);
/// Above this a message of a killed worker would wait longer than rwork promises.
const LEASE_MAX: Duration = Duration::from_secs(10);
/// Redis takes values of 512 MB; a message is written as base64 (4/3) inside an envelope, which is a JSON string inside
/// another one while it is held.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Redis' own limit for one value.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// What a URL is used for: its TLS rules differ as Celery's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Message broker. `rediss://` without any TLS parameter connects unverified, with a warning.
    Broker,
    /// Result backend. `rediss://` must say `ssl_cert_reqs`.
    Backend,
}

/// Where the server is and how to use it. [`Options::parse`] makes one.
#[derive(Clone)]
pub struct Options {
    /// One URL, or several separated by `;` that are tried in turn. Holds the password: never shown.
    pub url: String,
    /// What it is used for.
    pub role: Role,
    /// Celery's `broker_transport_options`, or `result_backend_transport_options`.
    pub transport: Transport,
    /// How long others must see us not renew until they give back what we hold: 100 ms to 10 s. Default 10 s.
    pub lease: Duration,
    /// Largest message, headers and body together, in bytes: 1 to 256 MiB. Default 256 MiB.
    pub message_bytes_max: usize,
    /// Largest encoded record, in bytes: 1 to 512 MiB. Default 512 MiB.
    pub record_bytes_max: usize,
}

impl Options {
    /// Options with every default, for a URL that can be used.
    ///
    /// # Errors
    /// [`Error::Url`] with what was expected: another scheme, a database that is no number, an unknown parameter.
    pub fn parse(url: &str, role: Role) -> Result<Self, Error> {
        let mut options = Self {
            url: url.to_owned(),
            role,
            transport: Transport::default(),
            lease: LEASE,
            message_bytes_max: MESSAGE_BYTES_MAX,
            record_bytes_max: RECORD_BYTES_MAX,
        };
        options.servers()?;
        for (name, value) in url::parameters(url) {
            options.transport.set(&name, &value).map_err(|expected| options.unusable(expected))?;
        }
        Ok(options)
    }

    /// The URL for people.
    pub fn redacted(&self) -> RedactedUrl {
        RedactedUrl::new(&self.url)
    }

    /// Whoever the URL names.
    pub(crate) fn servers(&self) -> Result<Servers, Error> {
        Servers::parse(&self.url, self.role).map_err(|expected| self.unusable(expected))
    }

    /// What must hold before anything is tried.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.problem().map_or(Ok(()), |expected| Err(self.unusable(expected)))
    }

    fn problem(&self) -> Option<String> {
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            let (least, most) = (LEASE_MIN.as_secs_f64(), LEASE_MAX.as_secs());
            return Some(format!(
                "`lease` to be {least}..={most} seconds (not {})",
                self.lease.as_secs_f64()
            ));
        }
        if self.transport.visibility_timeout < self.lease {
            let (timeout, lease) =
                (self.transport.visibility_timeout.as_secs_f64(), self.lease.as_secs_f64());
            return Some(format!(
                "`visibility_timeout` to be as long as a lease at least, {lease} s (not {timeout}): what a worker holds is \
                 refreshed five times in a lease"
            ));
        }
        for (name, value, most) in [
            ("message_bytes_max", self.message_bytes_max, MESSAGE_BYTES_MAX),
            ("record_bytes_max", self.record_bytes_max, RECORD_BYTES_MAX),
        ] {
            if !(1..=most).contains(&value) {
                return Some(format!("`{name}` to be 1..={most} (not {value})"));
            }
        }
        None
    }

    fn unusable(&self, expected: String) -> Error {
        Error::Url { url: self.redacted(), expected }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.redacted())
            .field("role", &self.role)
            .field("transport", &self.transport)
            .field("lease", &self.lease)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("record_bytes_max", &self.record_bytes_max)
            .finish()
    }
}
