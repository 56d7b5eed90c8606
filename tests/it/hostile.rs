//! Guests that misbehave, each with its exact outcome, on a worker that goes on as if nothing had been: the tasks beside
//! them are right, nothing of them is left, and the summary counts what happened and nothing else.

mod endings;
mod load;
mod memory;
mod output;
mod time;

use rwork_protocol::{Exception, Record, State};
use rwork_tests::rig::{CallOptions, Rig, Setup, log, message};
use rwork_worker::Summary;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Counts an ending in the summary that is expected.
type Counted = fn(&mut Summary);

/// How a hostile guest ended, and what it said.
struct Ended {
    record: Record,
    said: Vec<log::Line>,
}

/// Lets one call loose between a stream of others, and looks whether everything is as it was when it has ended.
async fn let_loose(setup: Setup, task: &str, args: &str, options: CallOptions, counted: Counted) -> Ended {
    let rig = setup.start().await;
    let neighbours = Neighbours::start(&rig).await;
    let record = rig.call(task, args, options).await;
    let beside = neighbours.stop().await;
    // Whoever comes after it is served as well.
    let after = Neighbours::start(&rig).await.stop().await;
    rig.until_idle().await;
    assert_eq!(rig.dead_letters().await, []);
    let mut expected = Summary { succeeded: beside + after, ..Summary::default() };
    counted(&mut expected);
    assert_eq!(rig.stop().await, expected);
    let said = log::of(record.task_id.as_str());
    Ended { record, said }
}

impl Ended {
    /// Its exception, after checking the state and that Celery's clients see the same.
    fn exception(&self) -> Exception {
        assert_eq!(self.record.status, State::Failure, "{:?}", self.record);
        self.record.exception().unwrap()
    }

    #[track_caller]
    fn assert_exception(&self, module: &str, kind: &str, args: &str) {
        let exception = self.exception();
        let found =
            (exception.exc_module.as_str(), exception.exc_type.as_str(), text(&exception.exc_message));
        assert_eq!(found, (module, kind, args));
    }

    #[track_caller]
    fn assert_value(&self, value: &str) {
        assert_eq!((&self.record.status, text(&self.record.result)), (&State::Success, value));
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A stream of small tasks, each of whose results is checked.
struct Neighbours {
    enough: CancellationToken,
    running: JoinHandle<u64>,
}

/// Sent at a time.
const BATCH: u64 = 10;

impl Neighbours {
    /// Starts the stream; returns when its first results are there.
    async fn start(rig: &Rig) -> Self {
        let enough = CancellationToken::new();
        let (told, mut done) = watch::channel(0);
        let (client, queue, stop) = (rig.client().clone(), rig.queue().clone(), enough.clone());
        let running = tokio::spawn(async move {
            let mut count = 0;
            while count == 0 || !stop.is_cancelled() {
                let sums = count..count + BATCH;
                let batch =
                    sums.clone().map(|n| message("math.add", format!("[{n}, 1]"), CallOptions::default()));
                let ids = client.send_many(batch.collect(), &queue).await.unwrap();
                for (id, n) in ids.iter().zip(sums) {
                    let record = client.wait(id, None).await.unwrap();
                    let expected = (n + 1).to_string();
                    assert_eq!((record.status, text(&record.result)), (State::Success, expected.as_str()));
                }
                count += BATCH;
                told.send_replace(count);
            }
            count
        });
        done.wait_for(|count| *count > 0).await.unwrap();
        Self { enough, running }
    }

    /// Ends the stream after the batch in progress; returns how many there were.
    async fn stop(self) -> u64 {
        self.enough.cancel();
        self.running.await.unwrap()
    }
}

/// No limits but the defaults.
fn unlimited() -> CallOptions {
    CallOptions::default()
}

fn hard(milliseconds: u64) -> CallOptions {
    CallOptions::default().hard(milliseconds)
}
