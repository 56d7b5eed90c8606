//! Two processes on one file, killed again and again while they work: nothing accepted is lost, and nothing runs twice
//! but what was running at a kill.
//!
//! The parent starts itself as worker and as producer, reads from their output what they did, and kills them between any
//! two steps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails; the children talk to their parent by printing"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{Broker, Consume, Consumer, Disposition, Publish, Route};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{Message, Properties, QueueName, Record, State, TaskId};

/// What a child is, in the environment, and its file.
const ROLE: &str = "RWORK_TEST_ROLE";
const FILE: &str = "RWORK_TEST_FILE";
/// Long enough for renewals on a busy machine, short enough to wait for at the end.
const LEASE: Duration = Duration::from_secs(2);
const KILLS: usize = 12;
const SEND: usize = 20;
const TAKE: usize = 32;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let role = std::env::var(ROLE);
    let file = std::env::var(FILE).unwrap_or_default();
    match role.as_deref() {
        Ok("worker") => runtime.block_on(work(open(Path::new(&file)))),
        Ok("producer") => runtime.block_on(produce(open(Path::new(&file)))),
        _ => {
            println!("\nrunning 2 tests");
            runtime.block_on(a_result_wakes_another_process());
            println!("test a_result_wakes_another_process ... ok");
            runtime.block_on(kills_lose_nothing());
            println!("test kills_lose_nothing ... ok\n");
        }
    }
}

fn open(path: &Path) -> Embedded {
    Embedded::open(Options { path: path.to_owned(), lease: LEASE, ..Options::default() }).unwrap()
}

fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

async fn consume(broker: &Embedded) -> Arc<dyn Consumer> {
    let consume = Consume { queues: vec![queue()], name: "w".to_owned(), unsettled_max: 1000 };
    Arc::from(broker.consume(consume).await.unwrap())
}

fn message(id: &TaskId) -> Publish {
    let properties = Properties { correlation_id: Some(id.to_string()), ..Properties::default() };
    let message = Message { properties, body: Bytes::from(vec![b'.'; 300]), ..Message::default() };
    Publish { route: Route::queue(&queue()), message, not_before: None }
}

fn success(id: &TaskId) -> Store {
    let record = Record {
        task_id: id.clone(),
        status: State::Success,
        result: Bytes::from_static(b"42"),
        traceback: None,
        children: None,
        date_done: None,
        group_id: None,
        parent_id: None,
        component: None,
        extended: None,
        other: Vec::new(),
    };
    Store { record, expires: None, reply_to: None, correlation_id: None }
}

/// Publishes for ever; prints what was accepted.
async fn produce(broker: Embedded) {
    loop {
        let ids: Vec<_> = (0..SEND).map(|_| TaskId::generate()).collect();
        broker.publish(ids.iter().map(message).collect()).await.unwrap();
        println!("accepted {}", words(&ids));
    }
}

/// Works for ever; prints what it began and what it ended.
async fn work(broker: Embedded) {
    let consumer = consume(&broker).await;
    let renewing = Arc::clone(&consumer);
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(LEASE / 4);
        loop {
            beat.tick().await;
            renewing.renew().await.unwrap();
        }
    });
    loop {
        let deliveries = consumer.receive(TAKE).await.unwrap();
        let ids: Vec<_> = deliveries
            .iter()
            .map(|delivery| {
                TaskId::new(delivery.message.properties.correlation_id.as_ref().unwrap()).unwrap()
            })
            .collect();
        println!("began {}", words(&ids));
        broker.store(ids.iter().map(success).collect()).await.unwrap();
        let acks = deliveries.into_iter().map(|delivery| delivery.settle(Disposition::Ack)).collect();
        consumer.settle(acks).await.unwrap();
        println!("ended {}", words(&ids));
    }
}

fn words(ids: &[TaskId]) -> String {
    ids.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" ")
}

/// A child, killed when dropped.
struct Role {
    child: Child,
    /// Read by a thread, so that the child never waits for its parent and a kill hits it at work.
    lines: mpsc::Receiver<String>,
}

impl Role {
    fn start(role: &str, file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(FILE, file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Waits for `count` lines, then kills it and notes all that it had printed by then.
    fn kill_after(mut self, count: usize, account: &mut Account) {
        self.lines.iter().take(count).for_each(|line| account.note(&line));
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // The last line may be cut off.
        let mut rest: Vec<_> = self.lines.iter().collect();
        let cut = rest.pop();
        rest.iter().for_each(|line| account.note(line));
        cut.iter().for_each(|line| account.note_cut(line));
        account.interrupted.append(&mut account.running);
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have been killed and waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the children said.
#[derive(Default)]
struct Account {
    accepted: BTreeSet<String>,
    runs: BTreeMap<String, usize>,
    running: BTreeSet<String>,
    /// Running when their worker was killed.
    interrupted: BTreeSet<String>,
}

impl Account {
    fn note(&mut self, line: &str) {
        let (what, ids) = line.split_once(' ').unwrap();
        for id in ids.split(' ').map(str::to_owned) {
            match what {
                "accepted" => {
                    self.accepted.insert(id);
                }
                "began" => {
                    *self.runs.entry(id.clone()).or_default() += 1;
                    self.running.insert(id);
                }
                "ended" => {
                    self.running.remove(&id);
                }
                other => panic!("unknown word {other}"),
            }
        }
    }

    /// A line that may lack its end. A whole id counts, but for `ended`, which it only might be.
    fn note_cut(&mut self, line: &str) {
        let Some((what @ ("accepted" | "began"), ids)) = line.split_once(' ') else { return };
        let whole: Vec<_> = ids.split(' ').filter(|id| id.len() == 36).collect();
        if !whole.is_empty() {
            self.note(&format!("{what} {}", whole.join(" ")));
        }
    }
}

async fn a_result_wakes_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let broker = open(&path);
    let _worker = Role::start("worker", &path);
    for _ in 0..50 {
        let id = TaskId::generate();
        let mut watch = broker.watch(&id).await.unwrap();
        broker.publish(vec![message(&id)]).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().status, State::Success);
    }
}

async fn kills_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let mut account = Account::default();
    let mut producer = Role::start("producer", &path);
    for kill in 0..KILLS {
        // A different moment each time, in the midst of work.
        let lines = 5 + 7 * kill;
        let worker = Role::start("worker", &path);
        if kill % 3 == 2 {
            let old = std::mem::replace(&mut producer, Role::start("producer", &path));
            old.kill_after(lines, &mut account);
        }
        worker.kill_after(lines, &mut account);
    }
    producer.kill_after(1, &mut account);
    check_integrity(&path);

    // The last worker gets what is left, also what the killed ones held, and is not killed before all is done.
    let broker = open(&path);
    let last = Role::start("worker", &path);
    let accepted: Vec<_> = account.accepted.iter().map(|id| TaskId::new(id).unwrap()).collect();
    assert!(accepted.len() > KILLS * SEND, "only {} were accepted", accepted.len());
    loop {
        let infos = broker.queues().await.unwrap();
        if infos.iter().all(|info| info.ready + info.unsettled + info.delayed == 0) {
            break;
        }
        account.note(&last.lines.recv().unwrap());
    }
    let results = broker.get(&accepted).await.unwrap();
    let missing = results.iter().filter(|result| result.is_none()).count();
    assert_eq!(missing, 0, "of {} accepted tasks have no result", accepted.len());
    let twice: Vec<_> = account.runs.iter().filter(|(_, runs)| **runs > 1).map(|(id, _)| id).collect();
    let unexplained: Vec<_> = twice.iter().filter(|id| !account.interrupted.contains(**id)).collect();
    assert!(unexplained.is_empty(), "ran twice without a kill: {unexplained:?}");
    println!(
        "  {} accepted, {KILLS} kills, {} interrupted, {} of them ran again",
        accepted.len(),
        account.interrupted.len(),
        twice.len()
    );
    drop((last, broker));
    check_integrity(&path);
}

fn check_integrity(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
