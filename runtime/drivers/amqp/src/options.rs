//! How to reach a server and how to use it: options, their defaults and limits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rwork_protocol::QueueName;
use rwork_protocol::service::{Error, RedactedUrl};

use crate::url::Endpoint;

/// Within this rwork says what is wrong.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// The default and the most. A healthy server lets us in within a few round trips; this leaves a second for our own slowness.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const _: () = assert!(CONNECT_TIMEOUT.as_secs() < TOLD_WITHIN.as_secs());
/// The server's own default (`max_message_size` of RabbitMQ 3.8 to 3.13; 16 MiB in 4.x).
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// RabbitMQ never takes more (`max_message_size`).
const MESSAGE_BYTES_LIMIT: usize = 512 << 20;
/// The server's own default: a dead line is noticed within twice this time.
const HEARTBEAT_S: u16 = 60;
/// RabbitMQ's own default since 3.8.17.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(1800);
/// RabbitMQ looks once a minute: less means nothing.
const CONSUMER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Celery's `result_expires`.
const REPLY_EXPIRES: Duration = Duration::from_secs(86_400);
/// Queues with more levels cost the server memory for each; RabbitMQ advises 10 and takes 255.
const PRIORITY_MAX: u8 = 255;

/// What kind of queue is declared where none is yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// On one node, with priorities.
    #[default]
    Classic,
    /// On several nodes, and the server counts deliveries.
    Quorum,
}

impl QueueType {
    /// `x-queue-type`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

impl FromStr for QueueType {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "classic" => Ok(Self::Classic),
            "quorum" => Ok(Self::Quorum),
            _ => Err(format!("`classic` or `quorum` (not `{word}`)")),
        }
    }
}

/// What a URL is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Message broker.
    Broker,
    /// Result backend: `rpc://` of Celery.
    Backend,
}

/// Where the server is and how to use it. [`Options::parse`] makes one.
#[derive(Clone)]
pub struct Options {
    /// One URL, or several separated by `;` that are tried in turn. Holds the password: never shown.
    pub url: String,
    /// What it is used for.
    pub role: Role,
    /// What the server's management pages show: the worker's node name. Default `rwork`.
    pub connection_name: String,
    /// Time for name, socket, TLS, login and virtual host, of all servers of the URL together: up to 4 s, so that whoever
    /// waits is told within five. Default 4 s (`broker_connection_timeout`).
    pub connect_timeout: Duration,
    /// Seconds between heartbeats, 0 for none; the smaller of ours and the server's is used. Default 60. `heartbeat` in the
    /// URL wins.
    pub heartbeat_s: u16,
    /// Largest message, headers and body together, in bytes: 1 to 512 MiB. Default 128 MiB.
    pub message_bytes_max: usize,
    /// The kind of the default queue (`task_default_queue_type`). Default classic.
    pub default_queue_type: QueueType,
    /// The default queue (`task_default_queue`). Default `celery`.
    pub default_queue: String,
    /// The kind of every other queue that is declared (`task_create_missing_queue_type`). Default classic.
    pub missing_queue_type: QueueType,
    /// `x-max-priority` of classic queues that are declared (`task_queue_max_priority`). Default none.
    pub max_priority: Option<u8>,
    /// The kind of the queues that hold delayed messages (`broker_native_delayed_delivery_queue_type`). Default quorum.
    pub delayed_queue_type: QueueType,
    /// The server's `consumer_timeout`: it closes a channel with a delivery that is unsettled for so long. At least 1 s.
    /// Default 30 min. Zero: it never does.
    pub consumer_timeout: Duration,
    /// Queues that are known from the configuration, for listing. Default none.
    pub queues: Vec<QueueName>,
    /// rpc results survive a restart of the server (`result_persistent`). Default false.
    pub result_persistent: bool,
    /// rpc results that nobody fetches go with their queue after so long. Default one day (`result_expires`).
    pub reply_expires: Duration,
}

impl Options {
    /// Options with every default, for a URL that can be used.
    ///
    /// # Errors
    /// [`Error::Url`] with what was expected: another scheme, a port that is no number, an unknown parameter.
    pub fn parse(url: &str, role: Role) -> Result<Self, Error> {
        let options = Self {
            url: url.to_owned(),
            role,
            connection_name: "rwork".to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            heartbeat_s: HEARTBEAT_S,
            message_bytes_max: MESSAGE_BYTES_MAX,
            default_queue_type: QueueType::Classic,
            default_queue: "celery".to_owned(),
            missing_queue_type: QueueType::Classic,
            max_priority: None,
            delayed_queue_type: QueueType::Quorum,
            consumer_timeout: CONSUMER_TIMEOUT,
            queues: Vec::new(),
            result_persistent: false,
            reply_expires: REPLY_EXPIRES,
        };
        options.endpoints()?;
        Ok(options)
    }

    /// The URL for people.
    pub fn redacted(&self) -> RedactedUrl {
        RedactedUrl::new(&self.url)
    }

    /// Its servers for people, without the parameters: names of files are no news in an error of the server's.
    pub(crate) fn servers(&self) -> Result<RedactedUrl, Error> {
        let servers: Vec<String> = self.endpoints()?.iter().map(|server| server.url().to_string()).collect();
        Ok(RedactedUrl::new(&servers.join(";")))
    }

    /// The kind with which this queue is declared where it is missing.
    pub fn queue_type(&self, queue: &str) -> QueueType {
        if queue == self.default_queue { self.default_queue_type } else { self.missing_queue_type }
    }

    /// The servers, in the order of the URL.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        Endpoint::parse(&self.url).map_err(|expected| self.unusable(expected))
    }

    /// What must hold before anything is tried.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.problem().map_or(Ok(()), |expected| Err(self.unusable(expected)))
    }

    fn problem(&self) -> Option<String> {
        if !(1..=MESSAGE_BYTES_LIMIT).contains(&self.message_bytes_max) {
            return Some(format!(
                "`message_bytes_max` to be 1..={MESSAGE_BYTES_LIMIT} (not {})",
                self.message_bytes_max
            ));
        }
        if self.connect_timeout.is_zero() || self.connect_timeout > CONNECT_TIMEOUT {
            return Some(format!(
                "the connect timeout to be more than 0 and at most {} s (not {})",
                CONNECT_TIMEOUT.as_secs(),
                self.connect_timeout.as_secs_f64()
            ));
        }
        if !self.consumer_timeout.is_zero() && self.consumer_timeout < CONSUMER_TIMEOUT_MIN {
            return Some(format!(
                "`consumer_timeout` to be 0 or at least {} s (not {})",
                CONSUMER_TIMEOUT_MIN.as_secs(),
                self.consumer_timeout.as_secs_f64()
            ));
        }
        if self.max_priority == Some(0) {
            return Some(format!("`task_queue_max_priority` to be 1..={PRIORITY_MAX} (not 0)"));
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
            .field("connection_name", &self.connection_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("heartbeat_s", &self.heartbeat_s)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("default_queue_type", &self.default_queue_type)
            .field("default_queue", &self.default_queue)
            .field("missing_queue_type", &self.missing_queue_type)
            .field("max_priority", &self.max_priority)
            .field("delayed_queue_type", &self.delayed_queue_type)
            .field("consumer_timeout", &self.consumer_timeout)
            .field("queues", &self.queues)
            .field("result_persistent", &self.result_persistent)
            .field("reply_expires", &self.reply_expires)
            .finish()
    }
}
