//! Tasks that take longer than the server waits for an ack (`consumer_timeout`), on a server that really closes channels.

use std::sync::Arc;
use std::time::Duration;

use rwork_tests::journal::Entry;
use rwork_tests::rabbitmq::RabbitServer;
use rwork_tests::stage::{Kind, Rabbit, Stage};
use serde_json::{Value, json};

/// What the server waits for an ack.
const PATIENCE: Duration = Duration::from_secs(3);
/// What it logs when that is over.
const IMPATIENT: &str = "timed out waiting for delivery acknowledgement";
/// What a worker logs then.
const CLOSED: &str = "the server closed the queue's channel: what was held of it goes to others";

async fn impatient() -> anyhow::Result<Arc<RabbitServer>> {
    let server = RabbitServer::start()?;
    server.set_consumer_timeout(PATIENCE).await?;
    Ok(Arc::new(server))
}

/// A task that takes three times what the server allows ends once, with its result, and the others of its queue never
/// notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_longer_than_consumer_timeout_costs_nobody_anything() -> anyhow::Result<()> {
    let server = impatient().await?;
    for kind in [Kind::RabbitMq, Kind::Quorum] {
        let stage = Stage::with(kind, Rabbit::on(&server).await?)?;
        stage.configure("", &format!("[amqp]\nconsumer_timeout = {}\n", PATIENCE.as_secs()))?;
        stage
            .test(async {
                let _worker = stage.worker("patient@test", &["-c", "2", "--max-in-flight", "2"]).await?;
                let client = stage.client().await?;
                let long = client.send("wire.hold", json!([0, "go"]), json!({})).await?;
                stage.started(&long).await;
                let held = |queue: &rwork_tests::rabbitmq::Queue| {
                    queue.name.starts_with("rwork.held.") && queue.unsettled == 1
                };
                stage.rabbit()?.until(|queues| queues.iter().any(held)).await?;
                // Others go on beside it; one that waits for its time tells how much of it has passed.
                let code = r#"
                    clock = note.apply_async((1,), countdown=seconds)
                    values = [add.delay(number, 1).get(timeout=T) for number in range(10)]
                    clock.get(timeout=T)
                    return values + [add.delay(10, 1).get(timeout=T)]
                "#;
                let values = client.run(code, json!({"seconds": 3 * PATIENCE.as_secs()})).await?;
                assert_eq!(values, json!((1..=11).collect::<Vec<u64>>()));
                stage.open("go")?;
                let result = client.get(&long).await?;
                assert_eq!((&result["number"], &result["redelivered"]), (&json!(0), &json!(false)));
                stage.settled().await?;
                assert_eq!(stage.starts(0)?, 1, "it ran once");
                assert_eq!(stage.dead().await?, Vec::<Value>::new());
                let said = stage.journal.so_far();
                let alarming: Vec<&Entry> = said.iter().filter(|entry| entry.is_alarming()).collect();
                assert!(
                    !alarming
                        .iter()
                        .any(|entry| !entry.to_string().contains("may be longer than RabbitMQ waits")),
                    "{alarming:?}"
                );
                assert!(!server.log().text().contains(IMPATIENT), "the server never lost its patience");
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// The same server, and a worker that nobody has told of its limit: this is what is spared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_nobody_told_costs_the_channel_and_no_task() -> anyhow::Result<()> {
    let server = impatient().await?;
    let stage = Stage::with(Kind::RabbitMq, Rabbit::on(&server).await?)?;
    stage
        .test(async {
            let _worker = stage.worker("untold@test", &["-c", "2", "--max-in-flight", "2"]).await?;
            let client = stage.client().await?;
            let long = client.send("wire.hold", json!([0, "go"]), json!({})).await?;
            stage.started(&long).await;
            stage.journal.reader().find(|entry| entry.says(CLOSED)).await;
            server.log().find(0, |line| line.contains(IMPATIENT)).await?;
            stage.open("go")?;
            assert_eq!(client.get(&long).await?["number"], json!(0));
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5), "the others go on");
            stage.settled().await?;
            assert_eq!(stage.dead().await?, Vec::<Value>::new());
            Ok(())
        })
        .await
}
