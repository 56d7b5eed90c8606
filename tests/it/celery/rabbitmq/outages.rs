//! What happens to the server while a worker has work: consumption resumes by itself, nothing that was accepted is lost,
//! and the log says what it was.

use std::sync::Arc;

use rwork_tests::journal::Entry;
use rwork_tests::rabbitmq::{Queue, RabbitServer, Room};
use rwork_tests::stage::{Kind, Rabbit, Stage, unless_it_hangs};
use serde_json::json;

use crate::celery::busy::{Busy, WAITING};

/// Starts it, with one task that runs.
async fn start(kind: Kind, rabbit: Rabbit) -> anyhow::Result<Busy> {
    // Without confirms Celery itself may lose what it sent before the server wrote it down.
    let confirm = json!({"broker_transport_options": {"confirm_publish": true}});
    let stage = Stage::with(kind, rabbit)?.with_settings(confirm);
    let all_there = |queue: &Queue| queue.unsettled > 1 && queue.ready + queue.unsettled > WAITING;
    Busy::start(stage, async |stage| stage.rabbit()?.until_queue("celery", all_there).await).await
}

/// Lets the running task end, and waits until the worker has warned since the outage began: one that has all it can hold
/// has nothing to say to the server before.
async fn told(busy: &Busy) -> anyhow::Result<()> {
    busy.stage.open("go")?;
    let mut log = busy.log.clone();
    log.find(|entry| entry.says("lost the broker: what was held will be redelivered")).await;
    Ok(())
}

/// Looks that all come to their one result, and that nothing is left.
async fn goes_on(busy: Busy) -> anyhow::Result<()> {
    busy.all_come().await?;
    // What ran when the connection went is delivered again, and may run again.
    assert!(busy.stage.starts(0)? <= 2);
    busy.stage.settled().await?;
    assert_eq!(busy.worker.terminate().await?.code(), Some(0));
    Ok(())
}

/// Awaits a test of one outage, with the worker's log if it fails.
macro_rules! busy {
    ($kind:expr, $rabbit:expr, |$busy:ident| $test:expr) => {{
        let $busy = start($kind, $rabbit).await?;
        let journal = $busy.stage.journal.clone();
        unless_it_hangs(&journal, async move {
            $test;
            goes_on($busy).await
        })
        .await?
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_39_a_restarted_server_is_found_again() -> anyhow::Result<()> {
    let server = &Arc::new(RabbitServer::start()?);
    for kind in [Kind::RabbitMq, Kind::Quorum] {
        busy!(kind, Rabbit::on(server).await?, |busy| {
            server.stop_app().await?;
            told(&busy).await?;
            server.start_app().await?
        });
        busy!(kind, Rabbit::on(server).await?, |busy| {
            server.kill_9()?;
            told(&busy).await?;
            server.start_again()?
        });
    }
    Ok(())
}

/// Blocked, not lost: what runs is settled meanwhile, what is published waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_or_disk_is_worked_off() -> anyhow::Result<()> {
    let server = &Arc::new(RabbitServer::start()?);
    for (kind, room) in [
        (Kind::RabbitMq, Room::Memory),
        (Kind::Quorum, Room::Memory),
        (Kind::RabbitMq, Room::Disk),
        (Kind::Quorum, Room::Disk),
    ] {
        busy!(kind, Rabbit::on(server).await?, |busy| {
            let client = busy.stage.client().await?;
            let retried = client.send("wire.retry", json!([1, 0]), json!({})).await?;
            server.starve(room).await?;
            busy.stage.open("go")?;
            let mut log = busy.log.clone();
            let blocked =
                log.find(|entry| entry.says("blocked: the server takes no messages until it has room again"));
            assert_eq!(blocked.await.field("why"), Some(room.complaint()));
            // All that waited is run. What is to be published before it is acked is held until there is room.
            let run = |queue: &Queue| queue.ready == 0 && queue.unsettled >= 1;
            busy.stage.rabbit()?.until_queue("celery", run).await?;
            let mut said = busy.stage.journal.so_far().into_iter();
            let is_its_end =
                |entry: Entry| entry.says("task succeeded") && entry.field("task_id") == Some(&*retried);
            assert!(!said.any(is_its_end), "the server took a message without having room");
            server.feed(room).await?;
            assert_eq!(client.get(&retried).await?["retries"], json!(1))
        });
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_closed_by_the_server() -> anyhow::Result<()> {
    for kind in [Kind::RabbitMq, Kind::Quorum] {
        busy!(kind, Rabbit::shared().await?, |busy| {
            let rabbit = busy.stage.rabbit()?;
            let closed = rabbit.server().close_connections(rabbit.vhost(), "for a test").await?;
            assert!(closed >= 1, "the worker has a connection");
            told(&busy).await?
        });
    }
    Ok(())
}
