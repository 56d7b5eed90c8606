//! The keys: kombu's byte for byte, rwork's own beginning with `rwork.`, all after the global prefix.

mod places;

use rwork_protocol::QueueName;

use crate::options::Transport;

pub(crate) use places::Places;

const PRIORITY_MAX: u8 = 9;

/// Names of everything in the database.
#[derive(Clone, Debug)]
pub(crate) struct BrokerKeys {
    prefix: String,
    sep: String,
    /// As configured: kombu looks a step up by bisecting, in their order.
    pub(crate) steps: Vec<u8>,
    pub(crate) unacked: String,
    pub(crate) unacked_index: String,
    pub(crate) unacked_mutex: String,
    /// Sorted set: consumer → counter of its renewals, which is also the end of a lease to the first edition, in milliseconds
    /// of the server's clock. Negative: it was reaped.
    pub(crate) consumers: String,
    /// String, random and set once: another one or none tells that the store lost everything.
    pub(crate) incarnation: String,
    /// Sorted set of dead letters, all with score 0: their ids are in the order of time.
    pub(crate) dead: String,
    /// Hash: dead letter → JSON.
    pub(crate) letters: String,
    /// Hash: queue → how many dead letters came from it.
    pub(crate) dead_counts: String,
}

impl BrokerKeys {
    pub(crate) fn new(transport: &Transport) -> Self {
        let prefix = transport.global_keyprefix.clone();
        let key = |name: &str| format!("{prefix}{name}");
        Self {
            sep: transport.sep.clone(),
            steps: transport.priority_steps.clone(),
            unacked: key(&transport.unacked_key),
            unacked_index: key(&transport.unacked_index_key),
            unacked_mutex: key(&transport.unacked_mutex_key),
            consumers: key("rwork.consumers"),
            incarnation: key("rwork.incarnation"),
            dead: key("rwork.dead"),
            letters: key("rwork.dead.letters"),
            dead_counts: key("rwork.dead.counts"),
            prefix,
        }
    }

    /// The step of a priority: the largest that is not above it.
    pub(crate) fn step(&self, priority: Option<u8>) -> u8 {
        let priority = priority.unwrap_or(0).min(PRIORITY_MAX);
        let above = self.steps.partition_point(|step| *step <= priority);
        // Below the first step kombu takes the last one, since Python counts -1 from the end.
        let nth = above.checked_sub(1).unwrap_or(self.steps.len().saturating_sub(1));
        self.steps.get(nth).copied().unwrap_or(0)
    }

    /// The list of a queue's messages of one step: `celery`, `celery␆␖3`.
    pub(crate) fn list(&self, queue: &str, step: u8) -> String {
        match step {
            0 => format!("{}{queue}", self.prefix),
            step => format!("{}{queue}{}{step}", self.prefix, self.sep),
        }
    }

    /// All lists of a queue, the first to be served first.
    pub(crate) fn lists(&self, queue: &str) -> impl Iterator<Item = String> {
        self.steps.iter().map(move |step| self.list(queue, *step))
    }

    /// Sorted set: parked message → when it is due, in milliseconds of the server's clock.
    pub(crate) fn delayed(&self, queue: &str) -> String {
        format!("{}{queue}", self.delayed_prefix())
    }

    pub(crate) fn delayed_prefix(&self) -> String {
        format!("{}rwork.delayed.", self.prefix)
    }

    /// Hash: parked message → `<step>:<envelope>`.
    pub(crate) fn parked(&self, queue: &str) -> String {
        format!("{}rwork.parked.{queue}", self.prefix)
    }

    /// List: messages that a worker of the first edition was taking when it died.
    pub(crate) fn taking(&self, queue: &str) -> String {
        format!("{}rwork.taking.{queue}", self.prefix)
    }

    /// Hash of a consumer: token of its line, process, number of its last batch with the answers, number of its last taking,
    /// `s:<tag>` → starts that were written down.
    pub(crate) fn consumer(&self, consumer: &str) -> String {
        format!("{}{consumer}", self.consumer_prefix())
    }

    pub(crate) fn consumer_prefix(&self) -> String {
        format!("{}rwork.consumer.", self.prefix)
    }

    /// Set: tags that a consumer holds.
    pub(crate) fn held(&self, consumer: &str) -> String {
        format!("{}{consumer}", self.held_prefix())
    }

    pub(crate) fn held_prefix(&self) -> String {
        format!("{}rwork.held.", self.prefix)
    }

    /// Set of an exchange's bindings.
    pub(crate) fn bindings(&self, exchange: &str) -> String {
        format!("{}{exchange}", self.bindings_prefix())
    }

    pub(crate) fn bindings_prefix(&self) -> String {
        format!("{}_kombu.binding.", self.prefix)
    }

    /// Set of those bindings that kombu 5.7 must not sweep away.
    pub(crate) fn permanent_bindings(&self, exchange: &str) -> String {
        format!("{}_kombu.binding_permanent.{exchange}", self.prefix)
    }

    /// What Celery binds a queue with: to a direct exchange of its name, by its name.
    pub(crate) fn own_binding(&self, queue: &QueueName) -> String {
        format!("{queue}{sep}{sep}{queue}", sep = self.sep)
    }

    /// Takes a binding apart: routing key, pattern, queue.
    pub(crate) fn split_binding<'a>(&self, binding: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let mut parts = binding.splitn(3, &self.sep);
        Some((parts.next()?, parts.next()?, parts.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(steps: &[u8]) -> BrokerKeys {
        let mut transport = Transport { priority_steps: steps.to_vec(), ..Transport::default() };
        transport.global_keyprefix = "pfx:".to_owned();
        BrokerKeys::new(&transport)
    }

    #[test]
    fn priorities_go_to_the_step_below() {
        for (steps, expect) in [
            (&[0, 3, 6, 9][..], [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]),
            (&[0], [0; 10]),
            (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            // Below the first one: the last one, as kombu has it.
            (&[4, 8], [8, 8, 8, 8, 4, 4, 4, 4, 8, 8]),
        ] {
            let found = std::array::from_fn(|priority| keys(steps).step(Some(priority as u8)));
            assert_eq!(found, expect, "{steps:?}");
        }
        assert_eq!(keys(&[0, 3, 6, 9]).step(None), 0);
        assert_eq!(keys(&[0, 3, 6, 9]).step(Some(255)), 9);
    }

    #[test]
    fn keys_are_kombus() {
        let keys = keys(&[0, 3, 6, 9]);
        let lists: Vec<_> = keys.lists("celery").collect();
        let expect = ["pfx:celery", "pfx:celery\x06\x163", "pfx:celery\x06\x166", "pfx:celery\x06\x169"];
        assert_eq!(lists, expect);
        assert_eq!(keys.unacked, "pfx:unacked");
        assert_eq!(keys.bindings("celery"), "pfx:_kombu.binding.celery");
        let queue = QueueName::new("celery").unwrap();
        assert_eq!(keys.own_binding(&queue), "celery\x06\x16\x06\x16celery");
        assert_eq!(keys.split_binding("a.b\x06\x16^a\\.b$\x06\x16q"), Some(("a.b", "^a\\.b$", "q")));
        assert_eq!(keys.split_binding("a.b"), None);
    }
}
