//! One connection of a worker is cut, or stands still, at the request that publishes what follows a task.

use rwork_tests::proxy::{Cut, Fault, Met, Proxy};
use rwork_tests::redis::Options;
use serde_json::json;

use super::{each_started_once, fresh_id, stage};

/// Cuts, and stalls that are longer than a worker's patience.
fn faults() -> impl Iterator<Item = Cut> {
    Cut::ALL.into_iter().chain([Cut::HoldRequest, Cut::HoldAnswer])
}

/// What was late or stood still reaches the server and the worker now, after all is done.
fn let_come(cut: Cut, met: &Met) -> anyhow::Result<()> {
    met.release();
    if cut == Cut::Late {
        met.deliver()?;
    }
    Ok(())
}

/// Fault 1: a reset, or a stall, around the publishing of a chain's next step ran that step twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chains_next_step_runs_once_however_its_publishing_is_cut() -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    let proxy = Proxy::before(server.port())?;
    stage
        .test(async {
            let _worker = stage.worker_through(&proxy, "cut@test", &[]).await?;
            let client = stage.client().await?;
            for (number, cut) in (0..).step_by(2).zip(faults()) {
                let ids = [fresh_id(), fresh_id()];
                // Nothing that the worker sends before has the id of the second step in clear.
                let met = proxy.on(Fault::at(cut, &ids[1]));
                let code = "
                    steps = zip(ids, (number, number + 1))
                    chain(*[note.si(number).set(task_id=id) for id, number in steps]).delay()
                ";
                client.run(code, json!({"ids": ids, "number": number})).await?;
                met.happened().await;
                client.get(&ids[1]).await?;
                let_come(cut, &met)?;
                each_started_once(&stage, [number, number + 1]).await?;
            }
            Ok(())
        })
        .await
}

/// Fault 1: the same made two lineages of a retry, with 7 starts for 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_stays_one_however_its_publishing_is_cut() -> anyhow::Result<()> {
    const RETRIES: usize = 3;
    let (server, stage) = stage(Options::default())?;
    let proxy = Proxy::before(server.port())?;
    stage
        .test(async {
            let _worker = stage.worker_through(&proxy, "cut@test", &[]).await?;
            let client = stage.client().await?;
            for cut in faults() {
                let id = fresh_id();
                let met = proxy.on(Fault::at(cut, &id));
                client.send("wire.retry", json!([RETRIES, 0]), json!({"task_id": id})).await?;
                met.happened().await;
                assert_eq!(client.get(&id).await?["retries"], json!(RETRIES), "{cut:?}");
                let_come(cut, &met)?;
                stage.settled().await?;
                assert_eq!(stage.begun(&id), RETRIES + 1, "starts after {cut:?}");
            }
            Ok(())
        })
        .await
}
