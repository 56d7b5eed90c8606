//! Which brokers and backends exist: the one place that turns a URL into a driver.

mod amqp;
mod embedded;
mod redis;

use std::sync::Arc;

use rwork_amqp::Amqp;
use rwork_backend::ResultBackend;
use rwork_broker::{Broker, RedactedUrl};
use rwork_client::Client;
use rwork_embedded::Embedded;
use rwork_redis::{Redis, Role};

use crate::config::{BACKEND_TRANSPORT, BROKER_TRANSPORT, Config};
use crate::failure::Failure;
use crate::wiring;

/// Schemes that Celery knows and this version does not, so that the error can say more than "unknown".
const LATER: [&str; 6] = ["sqs", "confluentkafka", "gcpubsub", "mongodb", "db+postgresql", "db+mysql"];
/// Schemes of RabbitMQ, as Celery and kombu spell them.
const AMQP: [&str; 4] = ["amqp", "amqps", "pyamqp", "librabbitmq"];
/// Results that are sent to who asked, over the broker's own connection: all that Celery reads of such a URL.
const RPC: &str = "rpc";
/// Schemes of Redis, as Celery and kombu spell them.
const REDIS: [&str; 6] = ["redis", "rediss", "redis+socket", "socket", "unix", "sentinel"];

/// Both services of one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// Where messages come from and go to.
    pub(crate) broker: Arc<dyn Broker>,
    /// Where results are kept.
    pub(crate) backend: Arc<dyn ResultBackend>,
    /// The broker for people.
    pub(crate) broker_url: RedactedUrl,
    /// The backend for people.
    pub(crate) backend_url: RedactedUrl,
}

impl Services {
    /// A producer that names itself as Celery's do.
    pub(crate) fn client(&self) -> Client {
        let origin = format!("gen{}@{}", std::process::id(), wiring::host_name());
        Client::new(Arc::clone(&self.broker), Arc::clone(&self.backend)).with_origin(origin)
    }
}

/// One server or file that was opened.
#[derive(Clone, Debug)]
pub(crate) enum Driver {
    /// A file.
    Embedded(Embedded),
    /// A Redis server, or several that stand in for each other.
    Redis(Redis),
    /// RabbitMQ.
    Amqp(Amqp),
}

impl Driver {
    /// As a broker.
    pub(crate) fn broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(embedded) => Arc::new(embedded.clone()),
            Self::Redis(redis) => Arc::new(redis.clone()),
            Self::Amqp(amqp) => Arc::new(amqp.clone()),
        }
    }

    /// As a result backend.
    pub(crate) fn backend(&self) -> Arc<dyn ResultBackend> {
        match self {
            Self::Embedded(embedded) => Arc::new(embedded.clone()),
            Self::Redis(redis) => Arc::new(redis.clone()),
            Self::Amqp(amqp) => Arc::new(amqp.clone()),
        }
    }
}

/// Opens broker and backend; one connection when they are the same.
///
/// # Errors
/// A URL that no driver takes; a service that can't be reached.
pub(crate) async fn services(config: &Config) -> anyhow::Result<Services> {
    let broker = open_broker(config).await?;
    let backend = open_backend(config, &broker).await?;
    Ok(together(config, &broker, &backend))
}

/// Opens the broker alone.
///
/// # Errors
/// As [`services`].
pub(crate) async fn broker(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    Ok(open_broker(config).await?.broker())
}

/// Opens the backend alone.
///
/// # Errors
/// As [`services`].
pub(crate) async fn backend(config: &Config) -> anyhow::Result<Arc<dyn ResultBackend>> {
    Ok(open_backend_alone(config).await?.backend())
}

/// The backend's driver alone.
///
/// # Errors
/// As [`services`].
pub(crate) async fn open_backend_alone(config: &Config) -> anyhow::Result<Driver> {
    open(config, &Place::backend(config)).await
}

/// Whether broker and backend are one server or file.
pub(crate) fn is_one_place(config: &Config) -> bool {
    Place::broker(config).url == Place::backend(config).url
}

/// The first half of [`services`].
///
/// # Errors
/// As [`services`].
pub(crate) async fn open_broker(config: &Config) -> anyhow::Result<Driver> {
    open(config, &Place::broker(config)).await
}

/// The second half of [`services`]: the same connection where both are one place.
///
/// # Errors
/// As [`services`].
pub(crate) async fn open_backend(config: &Config, broker: &Driver) -> anyhow::Result<Driver> {
    let at = Place::backend(config);
    if Place::broker(config).is_shared_with(&at, config)? {
        return Ok(broker.clone());
    }
    open(config, &at).await
}

/// Both, once they are open.
pub(crate) fn together(config: &Config, broker: &Driver, backend: &Driver) -> Services {
    Services {
        broker: committing(config, broker, backend),
        backend: backend.backend(),
        broker_url: RedactedUrl::new(Place::broker(config).url),
        backend_url: RedactedUrl::new(Place::backend(config).url),
    }
}

/// The broker, whose commits carry records where results are kept in the same store.
fn committing(config: &Config, broker: &Driver, backend: &Driver) -> Arc<dyn Broker> {
    match (broker, backend) {
        (Driver::Redis(server), Driver::Redis(results)) if server.is_same_server(results) => {
            Arc::new(server.with_results(results))
        }
        (Driver::Embedded(_), Driver::Embedded(_)) if is_one_place(config) => broker.broker(),
        (Driver::Embedded(embedded), _) => Arc::new(embedded.with_results_elsewhere()),
        _ => broker.broker(),
    }
}

/// Whether trying again can mend it without anybody's doing: a server may come up; a file's directory stays as it is.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    use rwork_broker::Error;
    let services = error.chain().filter_map(|cause| cause.downcast_ref::<Error>());
    services.into_iter().any(|cause| match cause {
        Error::Unreachable { url, .. } => kind(&url.to_string()) != Kind::Embedded,
        other => other.is_retryable(),
    })
}

/// What the broker's patience makes of the configured time limits, for a worker to say when it starts.
pub(crate) fn warning(config: &Config) -> Option<String> {
    match kind(&config.settings.broker_url) {
        Kind::Amqp => amqp::impatience(config),
        _ => None,
    }
}

/// A URL and the setting that it comes from.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    what: &'static str,
    key: &'static str,
    url: &'a str,
    role: Role,
    /// The table with Celery's options for it.
    transport: &'static str,
}

impl<'a> Place<'a> {
    fn broker(config: &'a Config) -> Self {
        Self {
            what: "broker",
            key: "broker_url",
            url: &config.settings.broker_url,
            role: Role::Broker,
            transport: BROKER_TRANSPORT,
        }
    }

    /// The broker's place when no other is set: what is sent there is also found there.
    fn backend(config: &'a Config) -> Self {
        match &config.settings.result_backend {
            None => Self::broker(config),
            Some(url) => Self {
                what: "result backend",
                key: "result_backend",
                url,
                role: Role::Backend,
                transport: BACKEND_TRANSPORT,
            },
        }
    }

    /// Whether one connection can serve both: the same URL, and nothing said of one alone that would matter to the other.
    fn is_shared_with(&self, backend: &Place<'_>, config: &Config) -> anyhow::Result<bool> {
        if self.key == backend.key {
            return Ok(true);
        }
        if kind(backend.url) == Kind::Rpc {
            return self.carries_results(backend, config).map(|()| true);
        }
        if self.url != backend.url {
            return Ok(false);
        }
        match kind(backend.url) {
            // What a backend's URL must say is checked all the same.
            Kind::Redis => redis::options(config, backend).map(|_| redis::same_options(config)),
            _ => Ok(true),
        }
    }

    /// `rpc://` needs a broker that can send to who asked.
    fn carries_results(&self, backend: &Place<'_>, config: &Config) -> anyhow::Result<()> {
        if kind(self.url) == Kind::Amqp {
            return Ok(());
        }
        let url = RedactedUrl::new(self.url);
        let failure = Failure::usage(format!(
            "expected the broker of `rpc://` results to be `amqp://…`, got `{url}` (results from {}, broker from {})",
            config.origin(backend.key),
            config.origin(self.key),
        ));
        Err(failure.hint("leave `result_backend` out: results are kept where messages come from").into())
    }

    fn opened<T>(&self, config: &Config, result: Result<T, rwork_broker::Error>) -> anyhow::Result<T> {
        result.map_err(|error| {
            let what = format!("failed to open the {} (from {})", self.what, config.origin(self.key));
            let hint = redis::hint(&error, self.transport);
            match hint {
                Some(hint) => Failure::usage(what).hint(hint).because(error).into(),
                None => anyhow::Error::from(error).context(what),
            }
        })
    }
}

/// Which driver a URL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind<'a> {
    Embedded,
    Redis,
    Amqp,
    Rpc,
    Other(Option<&'a str>),
}

fn kind(url: &str) -> Kind<'_> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("embedded") => Kind::Embedded,
        Some(scheme) if REDIS.contains(&scheme) => Kind::Redis,
        Some(scheme) if AMQP.contains(&scheme) => Kind::Amqp,
        Some(RPC) => Kind::Rpc,
        other => Kind::Other(other),
    }
}

/// One arm for each driver.
async fn open(config: &Config, place: &Place<'_>) -> anyhow::Result<Driver> {
    match kind(place.url) {
        Kind::Embedded => Ok(Driver::Embedded(embedded::open(config, place).await?)),
        Kind::Redis => Ok(Driver::Redis(redis::open(config, place).await?)),
        Kind::Amqp => Ok(Driver::Amqp(amqp::open(config, place).await?)),
        Kind::Rpc if place.role == Role::Backend => {
            let broker = Place::broker(config);
            broker.carries_results(place, config)?;
            Ok(Driver::Amqp(amqp::open(config, &broker).await?))
        }
        Kind::Rpc => Err(unsupported(config, place, Some(RPC)).into()),
        Kind::Other(scheme) => Err(unsupported(config, place, scheme).into()),
    }
}

fn unsupported(config: &Config, place: &Place<'_>, scheme: Option<&str>) -> Failure {
    let url = RedactedUrl::new(place.url);
    let failure = Failure::usage(format!(
        "expected the {} to be `redis://HOST:PORT/DB`, `amqp://HOST:PORT/VHOST` or `embedded:PATH`, got `{url}` (from {})",
        place.what,
        config.origin(place.key)
    ));
    match scheme {
        Some(scheme) if LATER.contains(&scheme) => failure.hint(format!(
            "this version has no driver for `{scheme}`; Redis and RabbitMQ work, and `embedded:./rwork.db` keeps everything in one file"
        )),
        _ => failure.hint(
            "for example `redis://localhost:6379/0`, `amqp://localhost`, or `embedded:./rwork.db`",
        ),
    }
}
