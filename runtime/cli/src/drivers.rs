//! Which brokers and backends exist: the one place that turns a URL into a driver.

use std::sync::Arc;

use rwork_backend::ResultBackend;
use rwork_broker::{Broker, RedactedUrl};
use rwork_client::Client;
use rwork_embedded::{Embedded, Options};

use crate::config::{Config, Origin};
use crate::failure::Failure;
use crate::wiring;

/// Schemes that other versions of rwork or Celery know, so that the error can say more than "unknown".
const LATER: &[&str] = &["redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp", "rpc"];

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

/// Opens broker and backend; one connection when they are the same.
///
/// # Errors
/// A URL that no driver takes; a service that can't be reached.
pub(crate) async fn services(config: &Config) -> anyhow::Result<Services> {
    let (broker_at, backend_at) = (Place::broker(config), Place::backend(config));
    let broker = open(config, &broker_at).await?;
    let backend =
        if backend_at.url == broker_at.url { broker.clone() } else { open(config, &backend_at).await? };
    Ok(Services {
        broker: Arc::new(broker),
        backend: Arc::new(backend),
        broker_url: RedactedUrl::new(broker_at.url),
        backend_url: RedactedUrl::new(backend_at.url),
    })
}

/// Opens the broker alone.
///
/// # Errors
/// As [`services`].
pub(crate) async fn broker(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    Ok(Arc::new(open(config, &Place::broker(config)).await?))
}

/// Opens the backend alone.
///
/// # Errors
/// As [`services`].
pub(crate) async fn backend(config: &Config) -> anyhow::Result<Arc<dyn ResultBackend>> {
    Ok(Arc::new(open(config, &Place::backend(config)).await?))
}

/// A URL and the setting that it comes from.
struct Place<'a> {
    what: &'static str,
    key: &'static str,
    url: &'a str,
}

impl<'a> Place<'a> {
    fn broker(config: &'a Config) -> Self {
        Self { what: "broker", key: "broker_url", url: &config.settings.broker_url }
    }

    /// The broker's place when no other is set: what is sent there is also found there.
    fn backend(config: &'a Config) -> Self {
        match &config.settings.result_backend {
            Some(url) => Self { what: "result backend", key: "result_backend", url },
            None => Self::broker(config),
        }
    }
}

/// One arm for each driver; there is one so far.
async fn open(config: &Config, place: &Place<'_>) -> anyhow::Result<Embedded> {
    match scheme(place.url) {
        Some("embedded") => embedded(config, place).await,
        other => Err(unsupported(config, place, other).into()),
    }
}

fn scheme(url: &str) -> Option<&str> {
    url.split_once(':').map(|(scheme, _)| scheme)
}

fn unsupported(config: &Config, place: &Place<'_>, scheme: Option<&str>) -> Failure {
    let url = RedactedUrl::new(place.url);
    let failure = Failure::usage(format!(
        "expected the {} to be `embedded:PATH`, got `{url}` (from {})",
        place.what,
        config.origin(place.key)
    ));
    match scheme {
        Some(scheme) if LATER.contains(&scheme) => failure.hint(format!(
            "this version has no driver for `{scheme}`; `embedded:./rwork.db` keeps everything in one file"
        )),
        _ => failure.hint("for example `embedded:./rwork.db`"),
    }
}

async fn embedded(config: &Config, place: &Place<'_>) -> anyhow::Result<Embedded> {
    let url = with_parameters(place.url, &config.embedded);
    let mut options = Options::parse_url(&url)?;
    if options.path.is_relative() {
        options.path = config.resolve(place.key, &options.path.to_string_lossy());
    }
    // Opening touches the disk, and may wait for another process that does the same.
    Ok(tokio::task::spawn_blocking(move || Embedded::open(options)).await??)
}

/// The URL with the parameters of `[embedded]` that it does not name itself.
fn with_parameters(url: &str, parameters: &[(String, String, Origin)]) -> String {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let mut whole = url.to_owned();
    for (name, value, _) in parameters.iter().filter(|(name, ..)| !named(name)) {
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(&format!("{name}={value}"));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_wins_over_the_table() {
        let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned(), Origin::Default);
        let table = [parameter("lease", "2"), parameter("synchronous", "full")];
        assert_eq!(
            with_parameters("embedded:a.db?lease=1", &table),
            "embedded:a.db?lease=1&synchronous=full"
        );
        assert_eq!(with_parameters("embedded:a.db", &table), "embedded:a.db?lease=2&synchronous=full");
    }
}
