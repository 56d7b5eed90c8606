//! What became of numbered tasks, from all who know: the producer, the tasks themselves, the workers' logs, the backend.
//!
//! 1. a [`Producer`] numbers what it sends and notes what was accepted; 2. [`History::gather`] collects the rest when all
//!    is over; 3. [`judge`] says what must not have happened. It knows nothing of how workers were started or killed.
//!
//! Where Celery's own workers take from the same queue, a message that is gone may be kombu's loss: [`ledger`] proves it
//! from the server's own account of every write, or does not.

mod gather;
mod judge;
pub mod ledger;
mod producer;
mod progress;

use std::collections::{BTreeMap, BTreeSet};

use rwork_protocol::{Record, TaskId, Timestamp};

pub use gather::lines;
pub use judge::{Fault, Verdict, judge};
pub use producer::Producer;
pub use progress::Progress;

/// Everything that is known when all is over.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What the broker accepted.
    pub accepted: BTreeMap<u64, TaskId>,
    /// What the tasks wrote down, in order.
    pub lines: Vec<Line>,
    /// Numbers that another number leads to: a chain's step follows the one before, a retry the attempt before.
    pub follows: BTreeMap<u64, u64>,
    /// When which worker was killed.
    pub kills: Vec<Kill>,
    /// When which worker stood still for longer than a lease, where others take that for a death.
    pub stops: Vec<Stop>,
    /// Which worker was handed which message, in the order of each worker's log.
    pub receipts: Vec<Receipt>,
    /// Which worker decided to start which task, as its own log says.
    pub decisions: Vec<Decision>,
    /// Connections that workers lost, and with them what they held, where a server takes that back.
    pub losses: Vec<Loss>,
    /// The records of ready states.
    pub records: BTreeMap<u64, Record>,
    /// Dead letters, with their reasons.
    pub dead: BTreeMap<u64, String>,
    /// Messages still in the queue.
    pub left: u64,
    /// What was sent while the server did not answer: it may have arrived or not.
    pub unsure: BTreeSet<u64>,
    /// What servers and workers besides rwork's do to messages, where there are any.
    pub beside: Option<Beside>,
}

/// What is different where messages are on a server that can be killed itself and that Celery's workers serve, too.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// When the server was away.
    pub outages: Vec<Outage>,
    /// Nodes that are Celery's.
    pub celery: BTreeSet<String>,
    /// What any worker held when the server was away may run again: the server takes back what a lost connection held.
    /// Elsewhere that excuses Celery's workers alone.
    pub held_by_connections: bool,
    /// What a worker of Celery's took out of its list without noting it anywhere, and was killed: proved by the
    /// [`ledger`].
    pub dropped_by_kombu: BTreeSet<u64>,
}

/// A time without the server. Workers go on with what they hold until they notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Just before it was killed.
    pub from: Timestamp,
    /// When it answered again.
    pub to: Timestamp,
}

impl Outage {
    /// Whether the server was away at some time between these two.
    fn meets(self, from: Timestamp, to: Timestamp) -> bool {
        self.from.as_millis() <= to.as_millis() && from.as_millis() <= self.to.as_millis()
    }
}

/// One line of the tasks' log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which task.
    pub number: u64,
    /// Began, or ended.
    pub word: Word,
    /// The worker's node name.
    pub node: String,
    /// When.
    pub at: Timestamp,
}

/// What a task wrote down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It began.
    Start,
    /// It reached its end.
    End,
}

/// A worker that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Its node name, of this one incarnation.
    pub node: String,
    /// When.
    pub at: Timestamp,
}

/// A worker that stood still for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Its node name.
    pub node: String,
    /// Just before it was stopped.
    pub from: Timestamp,
    /// Just after it went on.
    pub to: Timestamp,
}

/// One message handed to one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which task.
    pub number: u64,
    /// The worker's node name.
    pub node: String,
    /// When.
    pub at: Timestamp,
    /// How often it was handed out so far, this time included.
    pub deliveries: u64,
}

/// One worker's word that it starts a task, written before the task's own first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which task.
    pub number: u64,
    /// The worker's node name.
    pub node: String,
    /// When.
    pub at: Timestamp,
}

/// A connection that a worker lost, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The worker's node name.
    pub node: String,
    /// When it knew.
    pub at: Timestamp,
}

impl History {
    /// The node's kill, if it was killed.
    fn kill(&self, node: &str) -> Option<&Kill> {
        self.kills.iter().find(|kill| kill.node == node)
    }

    /// True if the node stood still at some time between these two.
    fn stood_still(&self, node: &str, from: Timestamp, to: Timestamp) -> bool {
        let meets = |stop: &Stop| Outage { from: stop.from, to: stop.to }.meets(from, to);
        self.stops.iter().any(|stop| stop.node == node && meets(stop))
    }

    /// Whether the node is one of Celery's.
    fn is_celery(&self, node: &str) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.celery.contains(node))
    }

    /// The starts of each number, by time: a task that is stopped between looking at its clock and writing its line has
    /// written it after younger ones.
    fn starts(&self) -> BTreeMap<u64, Vec<&Line>> {
        let mut starts: BTreeMap<u64, Vec<&Line>> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.word == Word::Start) {
            starts.entry(line.number).or_default().push(line);
        }
        starts.values_mut().for_each(|starts| starts.sort_by_key(|line| line.at));
        starts
    }
}
