//! The queues that a consumer takes from, with their keys.

use rwork_protocol::QueueName;
use rwork_protocol::json::write_string;

use crate::keys::BrokerKeys;

/// The queues of a consumer.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) queues: Vec<Source>,
    pub(crate) steps: Vec<u8>,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: QueueName,
    pub(crate) delayed: String,
    pub(crate) parked: String,
    pub(crate) taking: String,
    /// A list for each step.
    pub(crate) lists: Vec<String>,
    /// What follows the envelope in `unacked`: `, "", "celery"]`. kombu's own way back then leads to this very list.
    pub(crate) back: Vec<u8>,
}

impl Sources {
    pub(crate) fn new(keys: &BrokerKeys, queues: &[QueueName]) -> Self {
        let source = |name: &QueueName| {
            let mut back = b", \"\", ".to_vec();
            write_string(&mut back, name.as_str());
            back.push(b']');
            Source {
                name: name.clone(),
                delayed: keys.delayed(name.as_str()),
                parked: keys.parked(name.as_str()),
                taking: keys.taking(name.as_str()),
                lists: keys.lists(name.as_str()).collect(),
                back,
            }
        };
        Self { queues: queues.iter().map(source).collect(), steps: keys.steps.clone() }
    }

    /// Index of a queue.
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.queues.iter().position(|source| source.name.as_str() == name)
    }

    /// Name of a queue, for people and for keys.
    pub(crate) fn name(&self, queue: usize) -> &str {
        self.queues.get(queue).map_or("", |source| source.name.as_str())
    }
}

impl Source {
    /// Keys that change when something comes.
    pub(crate) fn told_by(&self) -> impl Iterator<Item = &String> {
        self.lists.iter().chain([&self.delayed])
    }
}
