//! A worker that has work when something happens to its server: one task runs, others wait, some of them held by it.

use rwork_tests::journal::Reader;
use rwork_tests::process::WorkerProcess;
use rwork_tests::stage::Stage;
use serde_json::{Value, json};

/// Messages that wait while one runs, through the whole outage.
pub(super) const WAITING: u64 = 20;

pub(super) struct Busy {
    pub(super) stage: Stage,
    /// Of the task that runs, and of those that wait.
    pub(super) ids: Vec<String>,
    /// From when all of that was so.
    pub(super) log: Reader,
    pub(super) worker: WorkerProcess,
}

impl Busy {
    /// Starts the worker and sends everything. Returns when one task runs and `held` has seen that others are held.
    pub(super) async fn start(
        stage: Stage,
        held: impl AsyncFnOnce(&Stage) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let worker = stage.worker("busy@test", &["-c", "1", "--max-in-flight", "1"]).await?;
        let client = stage.client().await?;
        let code = r#"
            ids = [hold.delay(0, "go").id]
            return ids + [note.delay(number + 1).id for number in range(waiting)]
        "#;
        let ids = client.run(code, json!({"waiting": WAITING})).await?;
        let ids: Vec<String> =
            ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        stage.started(&ids[0]).await;
        held(&stage).await?;
        let log = stage.journal.reader_from_now();
        Ok(Self { stage, ids, log, worker })
    }

    /// Lets the running task go on, and looks that all come to their one result.
    pub(super) async fn all_come(&self) -> anyhow::Result<()> {
        let stage = &self.stage;
        stage.open("go")?;
        // A client of its own: what an outage does to Celery's clients is not the matter here.
        let client = stage.client().await?;
        let code = "return [result(app, id).get(timeout=T) for id in ids]";
        let results = client.run(code, json!({"ids": self.ids})).await?;
        assert_eq!(results.as_array().map(Vec::len), Some(self.ids.len()));
        assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5), "and new ones are taken");
        assert_eq!(stage.dead().await?, Vec::<Value>::new());
        Ok(())
    }

    /// Looks that nothing that waited through the outage has begun twice. RabbitMQ gives back what is held as soon as a
    /// connection is lost, also what has begun and ended meanwhile.
    pub(super) fn began_once(&self) -> anyhow::Result<()> {
        for number in 1..=WAITING {
            assert_eq!(self.stage.starts(number)?, 1, "{number} was not running at the outage");
        }
        Ok(())
    }
}
