//! Celery's own clients and workers against rwork, on a real Redis and a real RabbitMQ: the conformance checklist of the
//! wire reference, one test for each item, named by its number, and what a user does with it.
//!
//! What is not about one broker's own keys or queues runs on both, from one place ([`on_both`]). Parts of items that are about events and remote control come with those.

mod busy;
mod leftovers;
mod lifecycle;
mod messages;
mod options;
mod rabbitmq;
mod reconnect;
mod results;
mod sample;
mod sharing;
mod signed;
mod transport;

use rwork_tests::celery::Client;
use rwork_tests::python::Version;
use rwork_tests::stage::{self, Kind, Stage};
use serde_json::Value;

/// These functions as tests, once for each broker.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        on_both!(on_redis Redis $($name)*);
        on_both!(on_rabbitmq RabbitMq $($name)*);
    };
    ($broker:ident $kind:ident $($name:ident)*) => {
        mod $broker {
            use rwork_tests::stage::Kind;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() -> anyhow::Result<()> {
                    super::$name(Kind::$kind).await
                }
            )*
        }
    };
}
use on_both;

/// A client of the shared stage, which one rwork worker with default settings serves.
async fn client(kind: Kind, version: Version) -> anyhow::Result<Client> {
    Ok(stage::shared(kind).await?.client_of(version).await?)
}

/// Runs Python with a client of each of these versions on the shared stage, and compares what it returns.
async fn each(kind: Kind, versions: &[Version], code: &str, expected: Value) -> anyhow::Result<()> {
    for version in versions {
        let client = client(kind, *version).await?;
        let found = stage::shared(kind).await?.test(async { Ok(client.eval(code).await?) }).await?;
        assert_eq!(found, expected, "with Celery {}", version.number());
    }
    Ok(())
}

/// The kinds of the dead letters, in order, when nothing is left to do.
async fn kinds_of_the_dead(stage: &Stage) -> anyhow::Result<Vec<String>> {
    stage.settled().await?;
    let letters = stage.dead().await?;
    let kind = |letter: &Value| letter["reason"]["kind"].as_str().map(str::to_owned);
    letters.iter().map(kind).collect::<Option<_>>().ok_or_else(|| anyhow::anyhow!("no kind: {letters:?}"))
}
