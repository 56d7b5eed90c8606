//! Every setting at the top level of `rwork.toml`: its field, its key by Celery's name, what it means, how it is read.
//!
//! Adding one is a field and a row of [`KEYS`].

use std::time::Duration;

use rwork_protocol::{AcceptContent, UnknownContent};

use super::raw::{Expected, Raw, show_bytes};

/// The broker and backend unless configured: one file in the working directory.
pub(crate) const DEFAULT_URL: &str = "embedded:./rwork.db";
/// How long a connection to a broker may take to make (Celery's default).
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);
/// How often client and server show each other that they live (Celery's default).
const HEARTBEAT: Duration = Duration::from_secs(120);
/// RabbitMQ's kinds of queues that tasks can wait in.
const QUEUE_TYPES: &[&str] = &["classic", "quorum"];
/// Most threads that may run guests: far above any machine's cores, low enough to catch a slip of the keyboard.
const CONCURRENCY_MAX: u64 = 1024;
/// Most invocations that may exist: the sandbox's own bound, which is that of the kernel's memory mappings.
const IN_FLIGHT_MAX: u64 = 8_192;
/// Most messages held for each CPU slot: beyond it one worker hoards what others could run.
const PREFETCH_MULTIPLIER_MAX: u64 = 10_000;
/// Most messages held at all: each costs its bytes in memory.
const PREFETCH_CEILING: u64 = 100_000;

/// The settings, merged from every layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) broker_url: String,
    /// None: the broker's URL.
    pub(crate) result_backend: Option<String>,
    pub(crate) result_expires: Option<Duration>,
    pub(crate) result_extended: bool,
    pub(crate) result_persistent: bool,
    /// None: at once, without a limit of ours.
    pub(crate) broker_connection_timeout: Option<Duration>,
    pub(crate) broker_connection_retry_on_startup: bool,
    /// None: none.
    pub(crate) broker_heartbeat: Option<Duration>,
    pub(crate) broker_native_delayed_delivery_queue_type: &'static str,
    pub(crate) accept_content: Vec<String>,
    pub(crate) accept_typed_values: Vec<String>,
    /// None: nobody's signature is known.
    pub(crate) security_cert_store: Option<String>,
    pub(crate) security_digest: &'static str,
    pub(crate) task_default_queue: String,
    pub(crate) task_default_queue_type: &'static str,
    pub(crate) task_queues: Vec<String>,
    pub(crate) task_create_missing_queue_type: &'static str,
    pub(crate) task_queue_max_priority: Option<u8>,
    pub(crate) task_default_priority: Option<u8>,
    pub(crate) task_time_limit: Option<Duration>,
    pub(crate) task_soft_time_limit: Option<Duration>,
    pub(crate) task_memory_limit: usize,
    pub(crate) task_acks_late: bool,
    pub(crate) task_acks_on_failure: bool,
    pub(crate) task_acks_on_timeout: bool,
    pub(crate) task_reject_on_worker_lost: bool,
    pub(crate) task_ignore_result: bool,
    pub(crate) task_store_errors_even_if_ignored: bool,
    pub(crate) task_track_started: bool,
    pub(crate) task_deliveries_max: u32,
    pub(crate) worker_hostname: String,
    pub(crate) worker_concurrency: usize,
    pub(crate) worker_prefetch_multiplier: usize,
    /// None: concurrency × 64.
    pub(crate) worker_max_in_flight: Option<usize>,
    pub(crate) worker_prefetch_max: usize,
    pub(crate) worker_bytes_max: usize,
    pub(crate) worker_deduplicate_successful_tasks: bool,
    pub(crate) worker_shutdown_timeout: Option<Duration>,
    pub(crate) worker_log_level: String,
    pub(crate) worker_log_format: &'static str,
    pub(crate) plugins_dir: String,
    pub(crate) plugins_cache_dir: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker_url: DEFAULT_URL.to_owned(),
            result_backend: None,
            result_expires: Some(rwork_backend::RESULT_EXPIRES),
            result_extended: false,
            result_persistent: false,
            broker_connection_timeout: Some(CONNECTION_TIMEOUT),
            broker_connection_retry_on_startup: true,
            broker_heartbeat: Some(HEARTBEAT),
            broker_native_delayed_delivery_queue_type: "quorum",
            accept_content: vec!["json".to_owned()],
            accept_typed_values: Vec::new(),
            security_cert_store: None,
            security_digest: "sha256",
            task_default_queue: "celery".to_owned(),
            task_default_queue_type: "classic",
            task_queues: Vec::new(),
            task_create_missing_queue_type: "classic",
            task_queue_max_priority: None,
            task_default_priority: None,
            task_time_limit: Some(Duration::from_secs(30 * 60)),
            task_soft_time_limit: None,
            task_memory_limit: 256 << 20,
            task_acks_late: true,
            task_acks_on_failure: true,
            task_acks_on_timeout: true,
            task_reject_on_worker_lost: false,
            task_ignore_result: false,
            task_store_errors_even_if_ignored: false,
            task_track_started: false,
            task_deliveries_max: rwork_worker::DELIVERIES_MAX,
            worker_hostname: "rwork@%h".to_owned(),
            worker_concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            worker_prefetch_multiplier: rwork_worker::PREFETCH_MULTIPLIER,
            worker_max_in_flight: None,
            worker_prefetch_max: rwork_worker::PREFETCH_MAX,
            worker_bytes_max: rwork_worker::BYTES_MAX,
            worker_deduplicate_successful_tasks: false,
            worker_shutdown_timeout: None,
            worker_log_level: "info".to_owned(),
            worker_log_format: "human",
            plugins_dir: "./plugins".to_owned(),
            plugins_cache_dir: None,
        }
    }
}

/// One setting.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    /// Its name in the file; `RWORK_` and the name in upper case in the environment.
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) help: &'static str,
    /// Reads a value into the settings.
    pub(crate) set: fn(&mut Settings, &Raw<'_>) -> Result<(), Expected>,
    /// The value as people read it.
    pub(crate) show: fn(&Settings) -> String,
}

impl Key {
    /// Its name in the environment.
    pub(crate) fn env(&self) -> String {
        format!("RWORK_{}", self.name.to_ascii_uppercase())
    }
}

macro_rules! key {
    ($field:ident, $help:literal, $read:expr, $show:expr) => {
        Key {
            name: stringify!($field),
            help: $help,
            set: |settings, raw| {
                let read: fn(&Raw<'_>) -> Result<_, Expected> = $read;
                settings.$field = read(raw)?;
                Ok(())
            },
            show: |settings| {
                let show: fn(&_) -> String = $show;
                show(&settings.$field)
            },
        }
    };
}

/// Every setting, in the order in which `rwork config` prints them.
pub(crate) const KEYS: &[Key] = &[
    key!(broker_url, "message broker", |raw| raw.text(), |url| redact(url)),
    key!(
        result_backend,
        "where results are kept; the broker's URL when not set",
        |raw| raw.text().map(Some),
        |url: &Option<String>| url.as_deref().map(redact).unwrap_or_default()
    ),
    key!(result_expires, "seconds that a result is kept; 0: for ever", |raw| raw.seconds(), show_time),
    key!(
        result_extended,
        "store with each result how its task was called: name, arguments, worker, retries, queue",
        |raw| raw.flag(),
        show_plain
    ),
    key!(result_persistent, "rpc results outlive a restart of RabbitMQ", |raw| raw.flag(), show_plain),
    key!(
        broker_connection_timeout,
        "seconds that a connection to the broker may take to make",
        |raw| raw.seconds(),
        show_time
    ),
    key!(
        broker_connection_retry_on_startup,
        "wait for a broker that can't be reached when a worker starts; false: end",
        |raw| raw.flag(),
        show_plain
    ),
    key!(
        broker_heartbeat,
        "seconds between RabbitMQ's heartbeats, or fewer if the server wants that; 0: none",
        |raw| raw.seconds(),
        show_time
    ),
    key!(
        broker_native_delayed_delivery_queue_type,
        "kind of the RabbitMQ queues that delayed messages wait in: classic or quorum",
        |raw| raw.choice(QUEUE_TYPES),
        show_plain
    ),
    key!(
        accept_content,
        "serializers that are read: json, msgpack, yaml, auth, or their MIME types; never pickle",
        read_accept,
        |names: &Vec<String>| names.join(",")
    ),
    key!(
        accept_typed_values,
        "types of kombu's typed JSON values that producers have registered; their values are handed on as they are",
        |raw| raw.texts(),
        |names: &Vec<String>| names.join(",")
    ),
    key!(
        security_cert_store,
        "folder or pattern of the certificates of those who may sign messages",
        |raw| raw.text().map(Some),
        show_option
    ),
    key!(
        security_digest,
        "hash that messages are signed with: sha256, sha384 or sha512",
        |raw| raw.choice(&["sha256", "sha384", "sha512"]),
        show_plain
    ),
    key!(task_default_queue, "queue of tasks that name none", |raw| raw.text(), show_plain),
    key!(
        task_default_queue_type,
        "kind of the default queue where RabbitMQ has none yet: classic or quorum",
        |raw| raw.choice(QUEUE_TYPES),
        show_plain
    ),
    key!(
        task_queues,
        "queues that a worker takes from; the default queue when empty",
        |raw| raw.texts(),
        |queues: &Vec<String>| queues.join(",")
    ),
    key!(
        task_create_missing_queue_type,
        "kind of every other queue that RabbitMQ does not have yet: classic or quorum",
        |raw| raw.choice(QUEUE_TYPES),
        show_plain
    ),
    key!(
        task_queue_max_priority,
        "x-max-priority of classic RabbitMQ queues that are made; without it they keep no priorities",
        |raw| raw.count(1, 255).map(|priority| u8::try_from(priority).ok()),
        show_option
    ),
    key!(
        task_default_priority,
        "priority of tasks that name none; 0 is served first",
        |raw| raw.count(0, 9).map(|priority| u8::try_from(priority).ok()),
        show_option
    ),
    key!(task_time_limit, "seconds that a task may run; 0: no limit", |raw| raw.seconds(), show_time),
    key!(
        task_soft_time_limit,
        "seconds after which a task is asked to end; 0: no limit",
        |raw| raw.seconds(),
        show_time
    ),
    key!(task_memory_limit, "memory of one invocation", |raw| raw.bytes(), |bytes| show_bytes(*bytes as u64)),
    key!(
        task_acks_late,
        "ack after the result is stored; false: before the task runs",
        |raw| raw.flag(),
        show_plain
    ),
    key!(task_acks_on_failure, "ack a failed task; false: reject it", |raw| raw.flag(), show_plain),
    key!(
        task_acks_on_timeout,
        "ack a task ended at its hard limit; false: requeue it",
        |raw| raw.flag(),
        show_plain
    ),
    key!(
        task_reject_on_worker_lost,
        "run a task again that ended in a trap or for want of memory",
        |raw| raw.flag(),
        show_plain
    ),
    key!(task_ignore_result, "store no results", |raw| raw.flag(), show_plain),
    key!(
        task_store_errors_even_if_ignored,
        "store failures although results are ignored",
        |raw| raw.flag(),
        show_plain
    ),
    key!(task_track_started, "store a STARTED state when a task begins", |raw| raw.flag(), show_plain),
    key!(
        task_deliveries_max,
        "starts without an outcome before a message is given up",
        |raw| raw.count(1, 1000).map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        show_plain
    ),
    key!(
        worker_hostname,
        "node name: %h host with domain, %n host alone, %d domain, %% a percent sign",
        |raw| raw.text(),
        show_plain
    ),
    key!(
        worker_concurrency,
        "invocations that may run on a CPU at once; the cores of the machine when not set",
        |raw| size(raw, 1, CONCURRENCY_MAX),
        show_plain
    ),
    key!(
        worker_max_in_flight,
        "invocations that may exist, waiting ones too; concurrency × 64 when not set",
        |raw| size(raw, 1, IN_FLIGHT_MAX).map(Some),
        show_option
    ),
    key!(
        worker_prefetch_multiplier,
        "messages held unstarted for each CPU slot",
        |raw| size(raw, 1, PREFETCH_MULTIPLIER_MAX),
        show_plain
    ),
    key!(
        worker_prefetch_max,
        "messages held unstarted at most",
        |raw| size(raw, 1, PREFETCH_CEILING),
        show_plain
    ),
    key!(
        worker_bytes_max,
        "bytes of messages and results held between receipt and commit",
        |raw| raw.bytes(),
        |bytes| show_bytes(*bytes as u64)
    ),
    key!(
        worker_deduplicate_successful_tasks,
        "don't run a redelivered task again whose result is stored",
        |raw| raw.flag(),
        show_plain
    ),
    key!(
        worker_shutdown_timeout,
        "seconds that running tasks may go on after the first signal; 0: as long as they take",
        |raw| raw.seconds(),
        show_time
    ),
    key!(
        worker_log_level,
        "trace, debug, info, warning, error, or a filter such as info,rwork_worker=debug",
        |raw| raw.text(),
        show_plain
    ),
    key!(worker_log_format, "human or json", |raw| raw.choice(&["human", "json"]), show_plain),
    key!(plugins_dir, "directory of the plugins", |raw| raw.text(), show_plain),
    key!(
        plugins_cache_dir,
        "directory of compiled plugins; the user's cache directory when not set",
        |raw| raw.text().map(Some),
        show_option
    ),
];

const SERIALIZERS: &str = "out of json, msgpack, yaml, auth";

/// The names as they were given, once all are known.
fn read_accept(raw: &Raw<'_>) -> Result<Vec<String>, Expected> {
    let names = raw.texts()?;
    match AcceptContent::parse(&names) {
        Ok(_) => Ok(names),
        Err(UnknownContent::Pickle(_)) => {
            Err(format!("{SERIALIZERS}; a pickle is never read, since to read one is to run what is in it"))
        }
        Err(_) => Err(format!("{SERIALIZERS}, or their MIME types")),
    }
}

fn redact(url: &str) -> String {
    rwork_protocol::service::RedactedUrl::new(url).to_string()
}

fn size(raw: &Raw<'_>, min: u64, max: u64) -> Result<usize, Expected> {
    raw.count(min, max).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

fn show_plain(value: &impl ToString) -> String {
    value.to_string()
}

fn show_option(value: &Option<impl ToString>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn show_time(time: &Option<Duration>) -> String {
    time.map_or(0.0, |time| time.as_secs_f64()).to_string()
}
