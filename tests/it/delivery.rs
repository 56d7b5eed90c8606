//! Nothing lost and nothing twice on Redis, through faults of the server, the network and the workers: each was seen to
//! break a promise of the first edition, and is named by its number in the issue that lists them.
//!
//! Each test has a server of its own and leases of a second, so that an outage of a few seconds is longer than a lease.

mod cut_lines;
mod deaths;
mod full_memory;
mod late_subscribers;
mod long_tasks;
mod lost_data;
mod many_queues;
mod memory;
mod outages;
mod refusals;
mod same_id;
mod stopped_workers;

use std::sync::Arc;
use std::time::Duration;

use rwork_tests::celery::Client;
use rwork_tests::redis::{Options, RedisServer};
use rwork_tests::stage::Stage;
use serde_json::json;

/// Leases of the workers of these tests.
const LEASE: Duration = Duration::from_secs(1);
/// An outage that whoever counts time alone takes for a death.
const OUTAGE: Duration = Duration::from_secs(3);

/// A stage on a server of its own, with short leases and little patience.
fn stage(options: Options) -> anyhow::Result<(Arc<RedisServer>, Stage)> {
    stage_with(options, "")
}

/// The same with these settings.
fn stage_with(options: Options, settings: &str) -> anyhow::Result<(Arc<RedisServer>, Stage)> {
    let server = Arc::new(RedisServer::start(options)?);
    let stage = Stage::on(Arc::clone(&server))?;
    configure(&stage, settings)?;
    Ok((server, stage))
}

fn configure(stage: &Stage, settings: &str) -> anyhow::Result<()> {
    const PATIENCE: &str = "socket_timeout = 1\nsocket_connect_timeout = 1\n";
    let lease = LEASE.as_secs();
    stage.configure(
        settings,
        &format!(
            "[broker_transport_options]\n{PATIENCE}\n\
             [result_backend_transport_options]\n{PATIENCE}\n[redis]\nlease = {lease}\n"
        ),
    )
}

/// Sends a `wire.hold` that waits for this gate, with a `wire.note` of the next number behind it. Returns both ids.
async fn send_chain(client: &Client, number: u64, gate: &str) -> anyhow::Result<[String; 2]> {
    let code = "
        last = chain(hold.si(number, gate), note.si(number + 1)).delay()
        return [last.parent.id, last.id]
    ";
    let ids = client.run(code, json!({"number": number, "gate": gate})).await?;
    let id = |index: usize| ids[index].as_str().unwrap().to_owned();
    Ok([id(0), id(1)])
}

/// An id for a task that is not sent yet.
fn fresh_id() -> String {
    rwork_protocol::TaskId::generate().as_str().to_owned()
}

/// Nothing is left to do, and these numbers have started once each.
async fn each_started_once(stage: &Stage, numbers: impl IntoIterator<Item = u64>) -> anyhow::Result<()> {
    stage.settled().await?;
    for number in numbers {
        assert_eq!(stage.starts(number)?, 1, "starts of {number}");
    }
    Ok(())
}
