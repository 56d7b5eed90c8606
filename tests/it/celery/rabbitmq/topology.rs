//! What is declared, and that nobody fights over it.

use std::collections::BTreeSet;

use rwork_tests::celery::Pool;
use rwork_tests::rabbitmq::{Binding, Queue};
use rwork_tests::stage::{Kind, Rabbit, Stage};
use serde_json::json;

/// What a server says, or a client, about arguments that differ.
const CONFLICT: &str = "PRECONDITION_FAILED";

/// Both kinds of worker run on one virtual host, one after the other; each then runs a task.
async fn start_together(stage: &Stage, rwork_first: bool) -> anyhow::Result<()> {
    let python = async || stage.python_worker("celery@beside", Pool::Solo, &[]).await;
    let rwork = async || stage.worker("rwork@beside", &[]).await;
    let (celery, ours) = match rwork_first {
        true => {
            let ours = rwork().await?;
            (python().await?, ours)
        }
        false => {
            let celery = python().await?;
            (celery, rwork().await?)
        }
    };
    let client = stage.client().await?;
    for number in 0..10 {
        assert_eq!(client.call("wire.add", json!([number, 1])).await?, json!(number + 1));
    }
    assert!(!celery.log().text().contains(CONFLICT), "{}", celery.log().text());
    let said = stage.journal.so_far();
    assert!(!said.iter().any(|entry| entry.to_string().contains(CONFLICT)), "{said:?}");
    assert!(celery.terminate().await?.success());
    assert_eq!(ours.terminate().await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_33_celery_and_rwork_start_in_either_order() -> anyhow::Result<()> {
    for kind in [Kind::RabbitMq, Kind::Quorum] {
        for rwork_first in [true, false] {
            let stage = Stage::of(kind).await?;
            stage.test(start_together(&stage, rwork_first)).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_another_type_is_used_as_it_is() -> anyhow::Result<()> {
    // Celery wants quorum queues here, rwork is told nothing of it; and the other way round.
    for (celerys, ours, declared) in [("quorum", "classic", "quorum"), ("classic", "quorum", "classic")] {
        let stage =
            Stage::of(Kind::RabbitMq).await?.with_settings(json!({"task_default_queue_type": celerys}));
        stage.configure(&format!("task_default_queue_type = \"{ours}\""), "")?;
        stage
            .test(async {
                let client = stage.client().await?;
                let id = client.send("wire.add", json!([2, 3]), json!({})).await?;
                let _worker = stage.worker("guest@test", &[]).await?;
                assert_eq!(client.get(&id).await?, json!(5));
                let queue = stage.rabbit()?.queue("celery").await?;
                assert_eq!(queue.map(|queue| queue.kind), Some(declared.to_owned()));
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// Queues, exchanges and bindings, as lines. What is for events and remote control comes with those.
async fn entities(rabbit: &Rabbit) -> anyhow::Result<BTreeSet<String>> {
    let (server, vhost) = (rabbit.server(), rabbit.vhost());
    let queue = |queue: &Queue| {
        let Queue { name, kind, durable, auto_delete, arguments, .. } = queue;
        format!("queue {name} {kind} durable={durable} auto_delete={auto_delete} {arguments}")
    };
    let mut all: BTreeSet<String> = server.queues(vhost).await?.iter().map(queue).collect();
    all.extend(server.exchanges(vhost).await?.iter().map(|exchange| format!("{exchange:?}")));
    all.extend(server.bindings(vhost).await?.iter().map(|binding| format!("{binding:?}")));
    all.retain(|line| !line.contains("pidbox") && !line.contains("celeryev"));
    Ok(all)
}

/// What rwork has beyond Celery: delayed messages come to queues of direct exchanges, too. 28 words are the time.
fn arrival(queue: &str) -> String {
    let binding = Binding {
        source_name: "celery_delayed_delivery".to_owned(),
        destination_name: queue.to_owned(),
        destination_kind: "queue".to_owned(),
        routing_key: format!("{}{queue}", "*.".repeat(28)),
    };
    format!("{binding:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_34_what_is_declared_is_what_celery_declares() -> anyhow::Result<()> {
    for kind in [Kind::RabbitMq, Kind::Quorum] {
        for queues in [&[][..], &["-Q", "mail,reports"][..]] {
            let (theirs, ours) = (Stage::of(kind).await?, Stage::of(kind).await?);
            ours.test(async {
                let celery = theirs.python_worker("celery@alone", Pool::Solo, queues).await?;
                let _rwork = ours.worker("rwork@alone", queues).await?;
                let (mut theirs, ours) = (entities(theirs.rabbit()?).await?, entities(ours.rabbit()?).await?);
                assert!(!theirs.is_empty(), "{}", celery.log().text());
                if kind == Kind::Quorum {
                    let names = if queues.is_empty() { &["celery"][..] } else { &["mail", "reports"] };
                    theirs.extend(names.iter().map(|name| arrival(name)));
                }
                assert_eq!(ours, theirs, "with {kind:?} and {queues:?}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}
