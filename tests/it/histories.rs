//! The same seeded histories of calls against the model and against real stores, one call at a time: every answer is
//! compared.
//!
//! ```text
//! RWORK_HISTORY_SEED=7 cargo test -p rwork-tests --test it histories     one seed, with its story
//! RWORK_HISTORY_SEEDS=1000 cargo test -p rwork-tests --test it histories  more seeds
//! ```
//!
//! The simulation of the worker proves the contract on the model; this shows that scripts and statements do what the model
//! does.

mod history;
mod real;
mod steps;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rwork_embedded::Embedded;
use rwork_redis::{Redis, Role};
use rwork_tests::redis::RedisServer;

use self::history::run;
use self::real::Real;

/// Seeds of one test run: about a second each where a death must be observed.
const SEEDS: u64 = 20;
/// Short, since each death takes one.
const LEASE: Duration = Duration::from_secs(1);

fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("RWORK_HISTORY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RWORK_HISTORY_SEEDS").unwrap_or(SEEDS),
    }
}

async fn all(open: impl AsyncFn(u64) -> anyhow::Result<Real>) {
    for seed in seeds() {
        let real = open(seed).await.unwrap();
        if let Err(difference) = run(seed, real).await {
            panic!(
                "seed {seed}: {difference}\n\nagain: RWORK_HISTORY_SEED={seed} cargo test -p rwork-tests --test it histories"
            );
        }
    }
}

fn embedded(folder: &Path, seed: u64) -> anyhow::Result<Real> {
    let path = folder.join(format!("{seed}.db"));
    let store = Arc::new(Embedded::open(rwork_embedded::Options { path, ..Default::default() })?);
    Ok(Real { broker: store.clone(), backend: store })
}

async fn redis(seed: u64) -> anyhow::Result<Real> {
    let database = RedisServer::fresh_database();
    let url = RedisServer::shared().url(database);
    let connect = async |role| {
        let mut options = rwork_redis::Options::parse(&url, role)?;
        options.lease = LEASE;
        options.transport.global_keyprefix = format!("history{seed}:");
        anyhow::Ok(Redis::connect(options).await?)
    };
    Ok(Real {
        broker: Arc::new(connect(Role::Broker).await?),
        backend: Arc::new(connect(Role::Backend).await?),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_answers_as_the_model_does() {
    let folder = tempfile::tempdir().unwrap();
    all(async |seed| embedded(folder.path(), seed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_answers_as_the_model_does() {
    all(redis).await;
}
