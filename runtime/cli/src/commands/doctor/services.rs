//! The broker and the result backend: do they answer, how fast, and does anything lie there that nobody looks at.

use std::time::Instant;

use super::check::Check;
use crate::config::Config;
use crate::drivers;

/// An answer that takes longer will be felt in every round trip.
const SLOW_MS: f64 = 50.0;

/// Looks at both.
pub(crate) async fn checks(config: &Config) -> Vec<Check> {
    let services = match drivers::services(config).await {
        Ok(services) => services,
        Err(error) => return vec![Check::failure("broker", &error)],
    };
    let started = Instant::now();
    let queues = match services.broker.queues().await {
        Ok(queues) => queues,
        Err(error) => return vec![Check::failure("broker", &error.into())],
    };
    let mut checks = vec![answered("broker", &services.broker_url.to_string(), started)];
    let started = Instant::now();
    checks.push(match services.backend.get(&[rwork_protocol::TaskId::generate()]).await {
        Ok(_) => answered("backend", &services.backend_url.to_string(), started),
        Err(error) => Check::failure("backend", &error.into()),
    });
    let dead: u64 = queues.iter().map(|queue| queue.dead).sum();
    if dead > 0 {
        checks.push(Check::warning(
            "dead letters",
            format!("{dead} messages were given up"),
            "`rwork dead list` says why; `rwork dead retry` puts them back",
        ));
    }
    checks
}

fn answered(what: &'static str, url: &str, since: Instant) -> Check {
    let milliseconds = since.elapsed().as_secs_f64() * 1e3;
    let found = format!("{url} answers in {milliseconds:.1} ms");
    if milliseconds > SLOW_MS {
        return Check::warning(what, found, "a busy disk or a file on a network; put it on a local one");
    }
    Check::ok(what, found)
}
