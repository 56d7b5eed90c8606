//! The broker and the result backend: do they answer, how fast, and does anything lie there that nobody looks at.

use std::time::Instant;

use rwork_broker::QueueInfo;

use super::check::Check;
use super::rabbitmq;
use super::redis::{self, Use};
use crate::config::Config;
use crate::drivers::{self, Driver, Services};

/// An answer that takes longer will be felt in every round trip.
const SLOW_MS: f64 = 50.0;

/// Looks at both, each for itself: one may be well while the other is not.
pub(crate) async fn checks(config: &Config) -> Vec<Check> {
    let broker = match drivers::open_broker(config).await {
        Ok(broker) => broker,
        Err(error) => {
            let mut checks = vec![Check::failure("broker", &error)];
            checks.extend(backend_alone(config).await);
            return checks;
        }
    };
    let backend = match drivers::open_backend(config, &broker).await {
        Ok(backend) => backend,
        Err(error) => {
            let services = drivers::together(config, &broker, &broker);
            let mut checks = of_broker(&services, &broker).await;
            checks.push(Check::failure("backend", &error));
            return checks;
        }
    };
    let services = drivers::together(config, &broker, &backend);
    let mut checks = of_broker(&services, &broker).await;
    checks.extend(of_backend(&services, &backend, !drivers::is_one_place(config)).await);
    checks
}

/// The backend where the broker can't be opened; nothing new where both are one place.
async fn backend_alone(config: &Config) -> Vec<Check> {
    if drivers::is_one_place(config) {
        return Vec::new();
    }
    match drivers::open_backend_alone(config).await {
        Ok(backend) => of_backend(&drivers::together(config, &backend, &backend), &backend, true).await,
        Err(error) => vec![Check::failure("backend", &error)],
    }
}

async fn of_broker(services: &Services, driver: &Driver) -> Vec<Check> {
    let started = Instant::now();
    let queues = match services.broker.queues().await {
        Ok(queues) => queues,
        Err(error) => return vec![Check::failure("broker", &error.into())],
    };
    let mut checks = match driver {
        Driver::Embedded(_) => vec![answered("broker", &services.broker_url.to_string(), started)],
        Driver::Redis(server) => redis::checks(server, Use::Broker).await,
        Driver::Amqp(server) => rabbitmq::checks(server).await,
    };
    checks.extend(dead_letters(&queues));
    checks
}

/// `examined`: the server itself is looked at too.
async fn of_backend(services: &Services, driver: &Driver, examined: bool) -> Vec<Check> {
    let started = Instant::now();
    // Nothing is kept there that could be asked for: the broker's own checks say how it fares.
    if matches!(driver, Driver::Amqp(_)) {
        return vec![Check::ok("backend", "results are sent to who asked (rpc)")];
    }
    if let Err(error) = services.backend.get(&[rwork_protocol::TaskId::generate()]).await {
        return vec![Check::failure("backend", &error.into())];
    }
    match driver {
        Driver::Redis(server) if examined => redis::checks(server, Use::Backend).await,
        _ => vec![answered("backend", &services.backend_url.to_string(), started)],
    }
}

fn dead_letters(queues: &[QueueInfo]) -> Option<Check> {
    let dead: u64 = queues.iter().map(|queue| queue.dead).sum();
    (dead > 0).then(|| {
        Check::warning(
            "dead letters",
            format!("{dead} messages were given up"),
            "`rwork dead list` says why; `rwork dead retry` puts them back",
        )
    })
}

fn answered(what: &'static str, url: &str, since: Instant) -> Check {
    let milliseconds = since.elapsed().as_secs_f64() * 1e3;
    let found = format!("{url} answers in {milliseconds:.1} ms");
    if milliseconds > SLOW_MS {
        return Check::warning(what, found, "a busy disk or a file on a network; put it on a local one");
    }
    Check::ok(what, found)
}
