//! What is served first.

use rwork_tests::stage::Stage;
use serde_json::json;

/// One task at a time, so that the tasks' own log is the order in which they were served.
const ONE_AT_A_TIME: [&str; 4] = ["-c", "1", "--max-in-flight", "1"];

/// The numbers in the order of their starts, once all are done.
async fn served(stage: &Stage, ids: &serde_json::Value) -> anyhow::Result<Vec<u64>> {
    let client = stage.client().await?;
    client.run("for id in ids: result(app, id).get(timeout=T)", json!({"ids": ids})).await?;
    Ok(stage.log()?.into_iter().filter(|(word, ..)| word == "start").map(|(_, number, _)| number).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_23_a_low_priority_number_is_served_first_and_each_step_in_order() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let client = stage.client().await?;
    let code = r#"
        ids = []
        for nth in range(2):
            for priority in (9, 6, 3, 0):
                ids.append(note.apply_async((priority * 10 + nth,), priority=priority).id)
        ids.append(note.apply_async((12,), priority=2).id)
        ids.append(note.apply_async((52,), priority=5).id)
        return ids
    "#;
    stage
        .test(async {
            let ids = client.eval(code).await?;
            let _worker = stage.worker("ordered@test", &ONE_AT_A_TIME).await?;
            // 0 to 2 are one step, 3 to 5 the next.
            assert_eq!(served(&stage, &ids).await?, [0, 1, 12, 30, 31, 52, 60, 61, 90, 91]);
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_24_no_queue_starves_and_no_step_is_passed_over() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let client = stage.client().await?;
    let code = r#"
        ids = [note.apply_async((1000 + nth,), queue="a", priority=3).id for nth in range(5)]
        for queue, first in (("a", 0), ("b", 100)):
            ids += [note.apply_async((first + nth,), queue=queue).id for nth in range(100)]
        return ids
    "#;
    stage
        .test(async {
            let ids = client.eval(code).await?;
            let _worker = stage.worker("fair@test", &[&ONE_AT_A_TIME[..], &["-Q", "a,b"]].concat()).await?;
            let order = served(&stage, &ids).await?;
            assert_eq!(order.len(), 205);
            let (first, last) = order.split_at(200);
            assert!(first.iter().all(|number| *number < 1000), "every 0 before any 3: {order:?}");
            assert_eq!(last, [1000, 1001, 1002, 1003, 1004]);
            // Whatever the size of a batch: of the first half, each queue has its part.
            let of_a = first[..100].iter().filter(|number| **number < 100).count();
            assert!((25..=75).contains(&of_a), "{of_a} of 100 were from one queue: {order:?}");
            for queue in [0, 100] {
                let own: Vec<_> = first.iter().filter(|number| **number / 100 * 100 == queue).collect();
                assert!(own.is_sorted(), "in order within a queue: {own:?}");
            }
            Ok(())
        })
        .await
}
