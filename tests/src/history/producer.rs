//! The producer: sends numbered tasks and keeps account of what the broker took.

use std::collections::{BTreeMap, BTreeSet};

use rwork_client::{Client, Error};
use rwork_protocol::{NewTask, QueueName, TaskId, TaskName};

/// Sends tasks of the `history` plugin, each with a number of its own that is never used again.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    queue: QueueName,
    run: TaskName,
    hold: TaskName,
    next: u64,
    /// A header of each message, to make it larger.
    padding: String,
    /// What was accepted so far.
    pub accepted: BTreeMap<u64, TaskId>,
    /// What was sent when nobody answered.
    pub unsure: BTreeSet<u64>,
}

impl Producer {
    /// A producer for the queue `celery`.
    ///
    /// # Errors
    /// Never, unless names of one word are no names any more.
    pub fn new(client: Client) -> anyhow::Result<Self> {
        Ok(Self {
            client,
            queue: QueueName::new("celery")?,
            run: TaskName::new("history.run")?,
            hold: TaskName::new("history.hold")?,
            next: 0,
            padding: String::new(),
            accepted: BTreeMap::new(),
            unsure: BTreeSet::new(),
        })
    }

    /// The same with messages that are larger by so many bytes.
    #[must_use]
    pub fn with_padding(mut self, bytes: usize) -> Self {
        self.padding = "x".repeat(bytes);
        self
    }

    /// The client that it sends with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends so many tasks of so many spins in one batch, and returns their ids.
    ///
    /// # Errors
    /// What the client says; the whole batch was refused then.
    pub async fn send(&mut self, count: u64, spins: u64) -> Result<Vec<TaskId>, Error> {
        let numbers: Vec<u64> = (self.next..self.next + count).collect();
        self.next += count;
        let tasks =
            numbers.iter().map(|number| self.task(&self.run, format!("[{number}, {spins}]"))).collect();
        let ids = self.client.send_many(tasks, &self.queue).await?;
        self.accepted.extend(numbers.into_iter().zip(ids.iter().cloned()));
        Ok(ids)
    }

    /// The same through an outage: where nobody answers, nobody knows whether the batch arrived, and its numbers are noted
    /// as such. Returns whether it was accepted.
    ///
    /// # Errors
    /// What the client says, if trying again is of no use.
    pub async fn send_or_doubt(&mut self, count: u64, spins: u64) -> Result<bool, Error> {
        let first = self.next;
        match self.send(count, spins).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_retryable() => {
                self.unsure.extend(first..self.next);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a task that goes on until the file `gate` is in the history folder.
    ///
    /// # Errors
    /// What the client says; it was refused then.
    pub async fn send_held(&mut self, gate: &str) -> Result<TaskId, Error> {
        let number = self.next;
        self.next += 1;
        let task = self.task(&self.hold, format!("[{number}, \"{gate}\"]"));
        let id = self.client.send(task, &self.queue).await?;
        self.accepted.insert(number, id.clone());
        Ok(id)
    }

    fn task(&self, name: &TaskName, args: String) -> NewTask {
        let mut task = NewTask::new(name.clone()).args(args);
        if !self.padding.is_empty() {
            task.headers.push(("x-padding".to_owned(), format!("\"{}\"", self.padding).into()));
        }
        task
    }
}
