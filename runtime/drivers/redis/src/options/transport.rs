//! Celery's transport options, by Celery's names and with its defaults (`kombu/transport/redis.py`).

use std::str::FromStr;
use std::time::Duration;

use rwork_net::{CertReqs, Secret, TlsOptions};

/// Celery's `broker_transport_options` (for a backend, `result_backend_transport_options`).
#[derive(Clone, Debug)]
pub struct Transport {
    /// How long kombu's workers leave a message with whoever took it. All workers of a database must agree. Default 1 h.
    pub visibility_timeout: Duration,
    /// The lists of a queue: a message goes to the largest step that is not above its priority. Default 0, 3, 6, 9.
    pub priority_steps: Vec<u8>,
    /// Between a queue's name and its step. Default the two bytes `06 16`.
    pub sep: String,
    /// Which queue is served first. Default [`QueueOrder::RoundRobin`].
    pub queue_order_strategy: QueueOrder,
    /// Put before every key. Default none. A result backend adds `_` unless it ends in one of `: _ - .`.
    pub global_keyprefix: String,
    /// Hash of what was taken and not settled. Default `unacked`.
    pub unacked_key: String,
    /// When it was taken. Default `unacked_index`.
    pub unacked_index_key: String,
    /// Who restores what was taken too long ago. Default `unacked_mutex`.
    pub unacked_mutex_key: String,
    /// How long that right lasts. Default 300 s.
    pub unacked_mutex_expire: Duration,
    /// The most that one restoring looks at. Default no limit.
    pub unacked_restore_limit: Option<usize>,
    /// With the next field: how often to look for what was taken too long ago. Default 10 s.
    pub unacked_restore_interval: Duration,
    /// Only every so many intervals there is a look. Default 10.
    pub unacked_restore_throttle: u32,
    /// The name that the sentinels know the master by. Needed with `sentinel://`.
    pub master_name: Option<String>,
    /// How to speak to the sentinels.
    pub sentinel_kwargs: SentinelOptions,
    /// How long an answer may take before the connection is given up. Default 30 s.
    pub socket_timeout: Option<Duration>,
    /// How long a connection may take to make, all servers of a list together. Default 4 s.
    pub socket_connect_timeout: Option<Duration>,
    /// How often to look for messages where the server can't tell of them. Default 100 ms.
    pub polling_interval: Option<Duration>,
    /// Where a message goes that no binding matches. Default none: publishing it is an error.
    pub deadletter_queue: Option<String>,
    /// What the server lists our connections as. Default `rwork`.
    pub client_name: Option<String>,
}

/// How to speak to the sentinels: Celery's `sentinel_kwargs`.
#[derive(Clone, Debug, Default)]
pub struct SentinelOptions {
    /// The sentinels' own user.
    pub username: Option<String>,
    /// The sentinels' own password: they don't know the master's.
    pub(crate) password: Option<Secret>,
    /// TLS to the sentinels. Default none.
    pub(crate) tls: Option<TlsOptions>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            visibility_timeout: Duration::from_secs(3600),
            priority_steps: vec![0, 3, 6, 9],
            sep: "\x06\x16".to_owned(),
            queue_order_strategy: QueueOrder::default(),
            global_keyprefix: String::new(),
            unacked_key: "unacked".to_owned(),
            unacked_index_key: "unacked_index".to_owned(),
            unacked_mutex_key: "unacked_mutex".to_owned(),
            unacked_mutex_expire: Duration::from_secs(300),
            unacked_restore_limit: None,
            unacked_restore_interval: Duration::from_secs(10),
            unacked_restore_throttle: 10,
            master_name: None,
            sentinel_kwargs: SentinelOptions::default(),
            socket_timeout: None,
            socket_connect_timeout: None,
            polling_interval: None,
            deadletter_queue: None,
            client_name: None,
        }
    }
}

/// Which of several queues is served first: Celery's `queue_order_strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOrder {
    /// A queue that was served goes to the end.
    #[default]
    RoundRobin,
    /// By name.
    Sorted,
    /// As they were named.
    Priority,
}

/// Celery's other options: known, and of no use here.
const WITHOUT_EFFECT: &[&str] = &[
    "body_encoding",
    "fanout_patterns",
    "fanout_prefix",
    "health_check_interval",
    "max_connections",
    "min_other_sentinels",
    "retry_on_timeout",
    "sentinel_fanout_compat",
    "socket_keepalive",
    "socket_keepalive_options",
];

const NAMES: &[&str] = &[
    "client_name",
    "deadletter_queue",
    "global_keyprefix",
    "master_name",
    "polling_interval",
    "priority_steps",
    "queue_order_strategy",
    "sentinel_kwargs.password",
    "sentinel_kwargs.ssl",
    "sentinel_kwargs.ssl_ca_certs",
    "sentinel_kwargs.ssl_cert_reqs",
    "sentinel_kwargs.ssl_certfile",
    "sentinel_kwargs.ssl_check_hostname",
    "sentinel_kwargs.ssl_keyfile",
    "sentinel_kwargs.username",
    "sep",
    "socket_connect_timeout",
    "socket_timeout",
    "unacked_index_key",
    "unacked_key",
    "unacked_mutex_expire",
    "unacked_mutex_key",
    "unacked_restore_interval",
    "unacked_restore_limit",
    "unacked_restore_throttle",
    "visibility_timeout",
];

/// Options that redis-py, and so Celery, also takes as parameters of a URL.
const URL_PARAMETERS: &[&str] = &[
    "client_name",
    "health_check_interval",
    "max_connections",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
];

impl Transport {
    /// Tells whether an option may be a parameter of a URL.
    pub(crate) fn is_url_parameter(name: &str) -> bool {
        URL_PARAMETERS.contains(&name)
    }

    /// Sets one option by Celery's name, from text: durations in seconds, lists separated by commas, an empty text or
    /// `none` for no value where there may be none.
    ///
    /// # Errors
    /// What was expected instead, to follow "expected ".
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some(option) = name.strip_prefix("sentinel_kwargs.") {
            return self.sentinel_kwargs.set(name, option, value);
        }
        match name {
            "visibility_timeout" => self.visibility_timeout = some_seconds(name, value)?,
            "priority_steps" => self.priority_steps = steps(name, value)?,
            "sep" => self.sep = text(name, value)?,
            "queue_order_strategy" => self.queue_order_strategy = QueueOrder::parse(name, value)?,
            "global_keyprefix" => self.global_keyprefix = value.to_owned(),
            "unacked_key" => self.unacked_key = text(name, value)?,
            "unacked_index_key" => self.unacked_index_key = text(name, value)?,
            "unacked_mutex_key" => self.unacked_mutex_key = text(name, value)?,
            "unacked_mutex_expire" => self.unacked_mutex_expire = some_seconds(name, value)?,
            "unacked_restore_limit" => self.unacked_restore_limit = may_be(count, name, value)?,
            "unacked_restore_interval" => self.unacked_restore_interval = some_seconds(name, value)?,
            "unacked_restore_throttle" => self.unacked_restore_throttle = count(name, value)?,
            "master_name" => self.master_name = optional(value).map(str::to_owned),
            "socket_timeout" => self.socket_timeout = may_be(some_seconds, name, value)?,
            "socket_connect_timeout" => self.socket_connect_timeout = may_be(some_seconds, name, value)?,
            "polling_interval" => self.polling_interval = may_be(some_seconds, name, value)?,
            "deadletter_queue" => self.deadletter_queue = optional(value).map(str::to_owned),
            "client_name" => self.client_name = may_be(client_name, name, value)?,
            // Without it a crash would lose what was taken: there is no such mode here.
            "ack_emulation" if value.eq_ignore_ascii_case("true") => {}
            "ack_emulation" => return Err(format!("`{name}` to be `true` (not `{value}`)")),
            _ if WITHOUT_EFFECT.contains(&name) => {}
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

impl SentinelOptions {
    fn set(&mut self, name: &str, option: &str, value: &str) -> Result<(), String> {
        match option {
            "username" => self.username = optional(value).map(str::to_owned),
            "password" => self.password = optional(value).map(Secret::new),
            "ssl" => {
                let wanted =
                    TlsOptions::truth(value).ok_or_else(|| format!("`{name}` to be `true` or `false`"))?;
                self.tls =
                    wanted.then(|| self.tls.take().unwrap_or_else(|| TlsOptions::new(CertReqs::Required)));
            }
            _ => {
                let tls = self.tls.get_or_insert_with(|| TlsOptions::new(CertReqs::Required));
                if !tls.set(option, value)? {
                    return Err(unknown(name));
                }
            }
        }
        Ok(())
    }
}

impl QueueOrder {
    fn parse(name: &str, word: &str) -> Result<Self, String> {
        match word {
            "round_robin" => Ok(Self::RoundRobin),
            "sorted" => Ok(Self::Sorted),
            "priority" => Ok(Self::Priority),
            _ => Err(format!("`{name}` to be `round_robin`, `sorted` or `priority` (not `{word}`)")),
        }
    }
}

fn unknown(name: &str) -> String {
    let near = NAMES
        .iter()
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    match near {
        Some((_, known)) => format!("a known transport option, not `{name}` (did you mean `{known}`?)"),
        None => format!("one of the transport options `{}`, not `{name}`", NAMES.join("`, `")),
    }
}

fn optional(value: &str) -> Option<&str> {
    (!value.is_empty() && !value.eq_ignore_ascii_case("none")).then_some(value)
}

fn may_be<T>(
    read: fn(&str, &str) -> Result<T, String>,
    name: &str,
    value: &str,
) -> Result<Option<T>, String> {
    optional(value).map(|value| read(name, value)).transpose()
}

fn text(name: &str, value: &str) -> Result<String, String> {
    optional(value).map(str::to_owned).ok_or_else(|| format!("`{name}` not to be empty"))
}

fn some_seconds(name: &str, value: &str) -> Result<Duration, String> {
    value
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("`{name}` to be a number of seconds above 0 (not `{value}`)"))
}

fn count<T: FromStr + PartialOrd + From<u8>>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .ok()
        .filter(|number| *number >= T::from(1))
        .ok_or_else(|| format!("`{name}` to be a whole number above 0 (not `{value}`)"))
}

/// Steps in order, without repetition: kombu looks a step up by bisecting.
fn steps(name: &str, value: &str) -> Result<Vec<u8>, String> {
    let read = |text: &str| text.trim().parse::<u8>().ok().filter(|step| *step <= 9);
    let steps: Option<Vec<u8>> = value
        .trim_matches(['[', ']', '(', ')'])
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(read)
        .collect();
    steps
        .filter(|steps| !steps.is_empty() && steps.is_sorted_by(|left, right| left < right))
        .ok_or_else(|| format!("`{name}` to be numbers of 0..=9 in ascending order (not `{value}`)"))
}

/// Redis refuses spaces and control characters in a connection's name.
fn client_name(name: &str, value: &str) -> Result<String, String> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        Err(format!("`{name}` to be printable ASCII without spaces (not `{value}`)"))
    }
}
