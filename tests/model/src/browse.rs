//! Queues and dead letters as people see them.

use rwork_broker::{DeadLetter, QueueInfo};
use rwork_protocol::QueueName;

use crate::store::Store;

impl Store {
    /// Counts of a queue.
    pub fn queue(&self, name: &QueueName) -> QueueInfo {
        let holders = self.members.values().flat_map(|member| member.held.values());
        let held =
            holders.filter(|held| self.messages.get(held.serial).is_some_and(|entry| entry.queue == *name));
        QueueInfo {
            name: name.clone(),
            ready: self.messages.ready_in(name).count() as u64,
            unsettled: held.count() as u64,
            delayed: self.messages.delayed_in(name).len() as u64,
            dead: self.messages.dead_in(name).count() as u64,
        }
    }

    /// Deletes what nobody holds; returns how many.
    pub fn purge(&mut self, name: &QueueName) -> u64 {
        let all: Vec<_> = self.messages.ready_in(name).chain(self.messages.delayed_in(name)).collect();
        all.iter().for_each(|serial| self.messages.forget(*serial));
        all.len() as u64
    }

    /// Dead letters of a queue, oldest first.
    pub fn dead_letters(&self, name: &QueueName) -> Vec<DeadLetter> {
        self.messages.dead_in(name).map(|(_, letter)| letter).collect()
    }

    /// Puts the dead letters of a queue back; returns how many.
    pub fn retry_dead_letters(&mut self, name: &QueueName) -> u64 {
        let all: Vec<_> = self.messages.dead_in(name).map(|(serial, _)| serial).collect();
        all.iter().for_each(|serial| self.messages.revive(*serial));
        all.len() as u64
    }
}
