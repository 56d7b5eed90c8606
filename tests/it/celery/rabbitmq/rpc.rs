//! Results that are sent to who asked.

use rwork_tests::python::Version;
use rwork_tests::stage::{self, Kind, Stage};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_49_a_reply_goes_where_it_was_asked_for_and_nowhere_else() -> anyhow::Result<()> {
    let stage = Stage::of(Kind::Rpc).await?;
    let _worker = stage.worker("replying@test", &[]).await?;
    let client = stage.client().await?;
    let code = r#"
        body, headers = minimal("wire.add", [2, 3])
        with app.connection_for_write() as connection:
            replies = Queue("replies", durable=True)(connection)
            replies.declare()
            publish(app, body, headers=headers, reply_to="replies", correlation_id="mine")
            # Without anybody to answer.
            silent_body, silent = minimal("wire.add", [20, 30])
            publish(app, silent_body, headers=silent)
            last_body, last = minimal("wire.add", [3, 4])
            publish(app, last_body, headers=last, reply_to="replies")
            found = []
            while len(found) < 2:
                message = replies.get(no_ack=True)
                if message is not None:
                    record = json.loads(message.body)
                    found.append([message.properties["correlation_id"] in ("mine", last["id"]), record["status"],
                                  record["result"], record["task_id"] in (headers["id"], last["id"]),
                                  message.delivery_info["exchange"], message.properties.get("delivery_mode")])
            return sorted(found)
    "#;
    stage
        .test(async {
            let expected = json!([[true, "SUCCESS", 5, true, "", 1], [true, "SUCCESS", 7, true, "", 1]]);
            assert_eq!(client.eval(code).await?, expected);
            stage.settled().await?;
            let queues = stage.rabbit()?.queues().await?;
            assert!(queues.iter().all(|queue| queue.is_empty()), "{queues:?}");
            assert!(!stage.journal.so_far().iter().any(|entry| entry.is_alarming()));
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_49_every_client_reads_its_replies() -> anyhow::Result<()> {
    let stage = stage::shared(Kind::Rpc).await?;
    for version in Version::ALL {
        let client = stage.client_of(version).await?;
        stage
            .test(async {
                assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5));
                let raised =
                    client.call("wire.fail", json!(["KnownError", "app", ["no", 7]])).await.unwrap_err();
                assert_eq!((raised.class().as_str(), &raised.args), ("app.KnownError", &json!(["no", 7])));
                let code = "return [one.get(timeout=T) for one in [add.delay(n, n) for n in range(20)]]";
                let twice: Vec<u64> = (0..20).map(|number| 2 * number).collect();
                assert_eq!(client.eval(code).await?, json!(twice));
                Ok(())
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_49_rwork_waits_for_its_own_replies() -> anyhow::Result<()> {
    let stage = Stage::of(Kind::Rpc).await?;
    let _worker = stage.worker("replying@test", &[]).await?;
    stage
        .test(async {
            assert_eq!(stage.rwork(&["call", "wire.add", "2", "3", "--wait"]).await?.trim(), "5");
            Ok(())
        })
        .await
}
