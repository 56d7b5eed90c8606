//! The stages that all tests share which only send: one for each kind of broker, with one worker of default settings.

use std::sync::LazyLock;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::{Kind, Stage};
use crate::celery::{Pool, PythonWorker};
use crate::process::WorkerProcess;

/// Set to `celery`, the shared stages have Celery's own worker in rwork's place: so one sees that a test expects what Celery
/// does, and not only what rwork does.
const INSTEAD: &str = "RWORK_TESTS_WORKER";

/// Who serves a shared stage.
enum Server {
    Rwork(#[expect(dead_code, reason = "kept alive")] WorkerProcess),
    Celery(#[expect(dead_code, reason = "kept alive")] PythonWorker),
}

/// Whether the shared stages are served by Celery's own worker.
pub fn is_served_by_celery() -> bool {
    std::env::var(INSTEAD).is_ok_and(|instead| instead == "celery")
}

/// A stage on the shared servers with one rwork worker of default settings, for all tests that only send to it. It ends
/// with this process.
///
/// # Errors
/// When it can't be started.
pub async fn shared(kind: Kind) -> anyhow::Result<&'static Stage> {
    /// The workers must outlive the runtime of the test that happens to be the first.
    static RUNTIME: LazyLock<std::io::Result<Runtime>> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build());
    static STAGES: [OnceCell<(Stage, Server)>; 4] = [const { OnceCell::const_new() }; 4];
    let stage = match kind {
        Kind::Redis => &STAGES[0],
        Kind::RabbitMq => &STAGES[1],
        Kind::Quorum => &STAGES[2],
        Kind::Rpc => &STAGES[3],
    };
    let start = async || -> anyhow::Result<_> {
        let runtime = RUNTIME.as_ref().map_err(|error| anyhow::anyhow!("no runtime: {error}"))?;
        runtime.spawn(serve(kind)).await?
    };
    Ok(&stage.get_or_try_init(start).await?.0)
}

async fn serve(kind: Kind) -> anyhow::Result<(Stage, Server)> {
    let stage = Stage::of(kind).await?;
    if is_served_by_celery() {
        let stage = stage.with_settings(json!({"accept_content": ["json", "msgpack", "yaml"]}));
        let worker = stage.python_worker("shared@test", Pool::Prefork(4), &[]).await?;
        return Ok((stage, Server::Celery(worker)));
    }
    stage.configure("accept_content = [\"json\", \"msgpack\", \"yaml\"]", "")?;
    let worker = stage.worker("shared@test", &["-c", "4"]).await?;
    Ok((stage, Server::Rwork(worker)))
}
