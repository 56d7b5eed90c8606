//! Roles of the children, and their start.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use rwork_backend::Store;
use rwork_broker::{
    Batch, Broker, Commit, Consume, Consumer, Delivery, Disposition, Ending, Publish, Room, Route,
};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{Message, Properties, QueueName, Record, State, TaskId};

/// What a child is, in the environment, and its file.
pub(crate) const ROLE: &str = "RWORK_TEST_ROLE";
pub(crate) const FILE: &str = "RWORK_TEST_FILE";
/// So that tests of a locked file are short.
pub(crate) const BUSY: Duration = Duration::from_millis(300);
pub(crate) const SEND: usize = 20;
const TAKE: Room = Room { messages: 32, bytes: usize::MAX };

pub(crate) fn open(path: &Path) -> Embedded {
    Embedded::open(Options { path: path.to_owned(), ..Options::default() }).unwrap()
}

pub(crate) fn impatient(path: &Path) -> Options {
    Options { path: path.to_owned(), busy_timeout: BUSY, ..Options::default() }
}

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(crate) async fn consume(broker: &Embedded) -> Box<dyn Consumer> {
    let consume = Consume { queues: vec![queue("q")], name: "w".to_owned(), unsettled_max: 1000 };
    broker.consume(consume).await.unwrap()
}

pub(crate) fn message(id: &TaskId) -> Publish {
    to("q", id)
}

fn to(name: &str, id: &TaskId) -> Publish {
    let properties = Properties { correlation_id: Some(id.to_string()), ..Properties::default() };
    let message = Message { properties, body: Bytes::from(vec![b'.'; 300]), ..Message::default() };
    Publish { route: Route::queue(&queue(name)), message, not_before: None }
}

pub(crate) fn id(delivery: &Delivery) -> TaskId {
    TaskId::new(delivery.message.properties.correlation_id.as_ref().unwrap()).unwrap()
}

/// Record, follow-up and ack of a message.
pub(crate) fn outcome(delivery: Delivery) -> Commit {
    let id = id(&delivery);
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
    let store = Store { record, expires: None, reply_to: None, correlation_id: None };
    let ending = Ending::Settle(delivery.settle(Disposition::Ack));
    Commit { records: vec![store], publish: vec![to("next", &id)], ending }
}

/// Publishes for ever; prints what was accepted.
pub(crate) async fn produce(file: &Path) {
    let broker = open(file);
    loop {
        let ids: Vec<_> = (0..SEND).map(|_| TaskId::generate()).collect();
        broker.publish_all(ids.iter().map(message).collect()).await.unwrap();
        println!("accepted {}", words(&ids));
    }
}

/// Works for ever; prints what it began and what it ended.
pub(crate) async fn work(file: &Path) {
    let broker = open(file);
    let consumer = consume(&broker).await;
    for number in 1.. {
        let deliveries = consumer.receive(TAKE).await.unwrap();
        let ids: Vec<_> = deliveries.iter().map(id).collect();
        println!("began {}", words(&ids));
        let commits = deliveries.into_iter().map(outcome).collect();
        consumer.commit(&Batch { number, commits }).await.unwrap();
        println!("ended {}", words(&ids));
    }
}

/// Takes one message, and ends it when its input ends; prints both, and what came of it.
pub(crate) async fn hold(file: &Path) {
    let broker = open(file);
    let consumer = consume(&broker).await;
    let held = consumer.receive(Room { messages: 1, ..TAKE }).await.unwrap();
    println!("began {}", id(&held[0]));
    wait_for_input();
    let answers =
        consumer.commit(&Batch { number: 1, commits: held.into_iter().map(outcome).collect() }).await;
    println!("ended {answers:?}");
}

/// Holds the lock beside the file until its input ends.
pub(crate) fn lock(file: &Path) {
    let mut path = file.as_os_str().to_owned();
    path.push("-lock");
    let file = std::fs::File::open(path).unwrap();
    file.lock().unwrap();
    println!("locked");
    wait_for_input();
}

/// Holds SQLite's own lock until its input ends, as a person with a shell may.
pub(crate) fn write(file: &Path) {
    let db = rusqlite::Connection::open(file).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    println!("locked");
    wait_for_input();
}

fn wait_for_input() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

pub(crate) fn words(ids: &[TaskId]) -> String {
    ids.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" ")
}

/// A child, killed when dropped.
pub(crate) struct Role {
    pub(crate) child: Child,
    /// Read by a thread, so that the child never waits for its parent and a kill hits it at work.
    pub(crate) lines: mpsc::Receiver<String>,
}

impl Role {
    pub(crate) fn start(role: &str, file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("the child says nothing")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Stops it, and waits until it is.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            thread::yield_now();
        }
    }

    /// Ends its input.
    pub(crate) fn release(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have been killed and waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
