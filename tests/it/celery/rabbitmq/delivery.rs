//! How messages are held, acknowledged, rejected and delayed, as the server sees it.

use rwork_tests::rabbitmq::Queue;
use rwork_tests::stage::{Kind, Stage};
use serde_json::{Value, json};

use super::super::kinds_of_the_dead;
use super::super::sharing::{
    celery_runs_again_what_a_killed_rwork_worker_held, rwork_runs_again_what_a_killed_celery_worker_held,
};

/// The levels of Celery's delayed delivery: a message for 3600 s waits in the queue of its highest bit, 2^11.
const LEVEL_OF_AN_HOUR: &str = "celery_delayed_11";

async fn item_35(kind: Kind) -> anyhow::Result<()> {
    tokio::try_join!(
        celery_runs_again_what_a_killed_rwork_worker_held(kind),
        rwork_runs_again_what_a_killed_celery_worker_held(kind),
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_35_what_a_killed_worker_held_is_redelivered() -> anyhow::Result<()> {
    item_35(Kind::RabbitMq).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_35_what_a_killed_worker_held_is_redelivered_by_a_quorum_queue() -> anyhow::Result<()> {
    item_35(Kind::Quorum).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_36_a_rejected_failure_goes_to_the_queues_own_dead_letters() -> anyhow::Result<()> {
    for kind in [Kind::RabbitMq, Kind::Quorum] {
        let stage = Stage::of(kind).await?;
        stage.configure("task_acks_on_failure = false", "")?;
        let client = stage.client().await?;
        stage
            .test(async {
                client
                    .eval(
                        "with app.connection_for_write() as c: Queue('graveyard', durable=True)(c).declare()",
                    )
                    .await?;
                let rabbit = stage.rabbit()?;
                let policy = json!({"dead-letter-exchange": "", "dead-letter-routing-key": "graveyard"});
                rabbit.server().set_policy(rabbit.vhost(), "^celery$", &policy).await?;
                let _worker = stage.worker("rejecting@test", &[]).await?;
                let raised =
                    client.call("wire.fail", json!(["ValueError", "builtins", ["no"]])).await.unwrap_err();
                assert_eq!(raised.class(), "builtins.ValueError", "{raised}");
                rabbit.until_queue("graveyard", |queue| queue.ready == 1).await?;
                let code = r#"
                    with app.connection_for_read() as connection:
                        message = Queue("graveyard")(connection).get()
                        death = message.headers["x-death"][0]
                        return [message.headers["task"], death["queue"], death["reason"]]
                "#;
                assert_eq!(client.eval(code).await?, json!(["wire.fail", "celery", "rejected"]));
                assert_eq!(kinds_of_the_dead(&stage).await?.len(), 1, "and rwork's own is there");
                Ok(())
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_37_a_hundred_waiting_tasks_do_not_block_a_normal_one() -> anyhow::Result<()> {
    // They wait in the server, so that no prefetch is spent on them.
    let stage = Stage::of(Kind::RabbitMq).await?;
    let _worker = stage.worker("waiting@test", &["-c", "1", "--max-in-flight", "1"]).await?;
    let client = stage.client().await?;
    let code = r#"
        for number in range(100):
            note.apply_async((number,), countdown=3600)
        return add.delay(2, 3).get(timeout=T)
    "#;
    stage
        .test(async {
            assert_eq!(client.eval(code).await?, json!(5));
            let parked = |queues: &[Queue]| {
                let of = |name: &str| queues.iter().find(|queue| queue.name == name);
                // The hour has begun: some may have gone one level down by whole seconds.
                of(LEVEL_OF_AN_HOUR).is_some_and(|queue| queue.ready == 100)
                    && of("celery").is_some_and(Queue::is_empty)
            };
            stage.rabbit()?.until(parked).await?;
            assert_eq!(stage.log()?, []);
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_38_celerys_own_delay_is_understood_and_used() -> anyhow::Result<()> {
    // Celery delays natively only what goes to an exchange that is not direct.
    let stage = Stage::of(Kind::Quorum).await?.with_settings(json!({
        "task_default_exchange": "tasks", "task_default_exchange_type": "topic",
    }));
    let _worker = stage.worker("quorum@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let code = r#"
                sent = time.time()
                delayed = add.apply_async((2, 3), countdown=5)
                value = delayed.get(timeout=T)
                return [value, delayed.date_done.timestamp() >= sent + 5 - 0.05]
            "#;
            let waiting = tokio::spawn({
                let client = stage.client().await?;
                async move { client.eval(code).await }
            });
            // 5 is 101: its first wait is in the queue of 4 s, and nobody holds it.
            stage.rabbit()?.until_queue("celery_delayed_2", |queue| queue.ready == 1).await?;
            let channels = stage.rabbit()?.channels().await?;
            assert!(
                channels.iter().all(|channel| channel["global_prefetch_count"] == json!(0)),
                "{channels:?}"
            );
            let consumers = stage.rabbit()?.server().consumers(stage.rabbit()?.vhost()).await?;
            let limited =
                |consumer: &Value| consumer["prefetch_count"].as_u64().is_some_and(|count| count > 0);
            assert!(!consumers.is_empty() && consumers.iter().all(limited), "{consumers:?}");
            assert_eq!(waiting.await??, json!([5, true]));

            client.send("wire.retry", json!([1, 3600]), json!({})).await?;
            stage.rabbit()?.until_queue(LEVEL_OF_AN_HOUR, |queue| queue.ready == 1).await?;
            Ok(())
        })
        .await
}

/// What the server sees unacked while slots are taken is what Celery's users reckon with: the multiplier for each slot
/// unstarted, and what runs, which Celery's own workers have acked by then unless they ack late. Never is it more than
/// may be held, which counts what is done and not acked yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_much_is_held_and_no_more() -> anyhow::Result<()> {
    const SLOTS: u64 = 2;
    const MULTIPLIER: u64 = 4;
    const BLOCKED: u64 = SLOTS * MULTIPLIER + SLOTS;
    // More than may ever be held.
    const ALL: u64 = 1420;
    // With as little as the multiplier asks for, and with as much as short tasks may have.
    for (kind, prefetch_max) in
        [(Kind::RabbitMq, 8), (Kind::Quorum, 8), (Kind::RabbitMq, 1024), (Kind::Quorum, 1024)]
    {
        let allowed: u64 = prefetch_max + SLOTS;
        let stage = Stage::of(kind).await?;
        let settings = format!(
            "worker_prefetch_multiplier = {MULTIPLIER}\nworker_prefetch_max = {prefetch_max}\n\
             worker_max_in_flight = {SLOTS}"
        );
        stage.configure(&settings, "")?;
        let client = stage.client().await?;
        let send = "return [hold.delay(number, 'go').id for number in range(20)] \
                    + [note.delay(number).id for number in range(100, 1500)]";
        stage
            .test(async {
                let ids = client.eval(send).await?;
                let _worker = stage.worker("prefetching@test", &["-c", "2"]).await?;
                let rabbit = stage.rabbit()?;
                rabbit
                    .until_queue("celery", |queue| {
                        assert!(queue.unsettled <= BLOCKED, "{queue:?}");
                        queue.unsettled == BLOCKED && queue.ready == ALL - BLOCKED
                    })
                    .await?;
                stage.open("go")?;
                // At each look on the way down, with what is done and on its way to be acked.
                rabbit
                    .until_queue("celery", |queue| {
                        assert!(queue.unsettled <= allowed, "{queue:?}");
                        queue.is_empty()
                    })
                    .await?;
                let code = "for id in ids[:20]: result(app, id).get(timeout=T)";
                client.run(code, json!({"ids": ids})).await?;
                Ok(())
            })
            .await?;
    }
    Ok(())
}
