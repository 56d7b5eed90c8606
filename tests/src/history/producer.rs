//! The producer: sends numbered tasks and keeps account of what the broker took.

use std::collections::{BTreeMap, BTreeSet};

use rwork_client::{Client, Error};
use rwork_protocol::{NewTask, QueueName, TaskId, TaskName};
use serde_json::{Value, json};

/// Sends tasks of the `history` plugin, each with a number of its own that is never used again.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    queue: QueueName,
    run: TaskName,
    hold: TaskName,
    retry: TaskName,
    next: u64,
    /// A header of each message, to make it larger.
    padding: String,
    /// What was accepted so far.
    pub accepted: BTreeMap<u64, TaskId>,
    /// What follows what: steps of chains, and retries.
    pub follows: BTreeMap<u64, u64>,
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
            retry: TaskName::new("history.retry")?,
            next: 0,
            padding: String::new(),
            accepted: BTreeMap::new(),
            follows: BTreeMap::new(),
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

    /// Sends so many times a group of ten tasks through whatever happens: two chains of three, one that is retried once,
    /// three single ones. Returns whether they were accepted.
    ///
    /// # Errors
    /// What the client says, if trying again is of no use.
    pub async fn send_mix(&mut self, groups: u64, spins: u64) -> Result<bool, Error> {
        let first = self.next;
        let (mut tasks, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..groups {
            for length in [3, 3, 1, 1, 1] {
                let (task, steps) = self.chain(length, spins);
                tasks.push(task);
                ids.extend(steps);
            }
            let number = self.number();
            let mut task = self.task(&self.retry, format!("[{number}, {spins}]"));
            task.id = Some(TaskId::generate());
            ids.extend(task.id.clone().map(|id| (number, id)));
            tasks.push(task);
            // The second attempt writes down the number after the first one's.
            let again = self.number();
            self.follows.insert(again, number);
        }
        match self.client.send_many(tasks, &self.queue).await {
            Ok(_) => {
                self.accepted.extend(ids);
                Ok(true)
            }
            Err(error) if error.is_retryable() => {
                self.unsure.extend(first..self.next);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A chain of so many steps, and its numbers.
    fn chain(&mut self, length: u64, spins: u64) -> (NewTask, Vec<(u64, TaskId)>) {
        let steps: Vec<(u64, TaskId)> = (0..length).map(|_| (self.number(), TaskId::generate())).collect();
        for pair in steps.windows(2) {
            if let [(before, _), (number, _)] = pair {
                self.follows.insert(*number, *before);
            }
        }
        let step = |(number, id): &(u64, TaskId)| {
            json!({
                "task": self.run.as_str(), "args": [number, spins], "kwargs": {},
                "options": {"task_id": id.as_str()}, "subtask_type": null, "immutable": true,
            })
        };
        // The last step comes first.
        let rest: Vec<Value> = steps.iter().skip(1).rev().map(step).collect();
        let (number, id) = steps.first().cloned().unzip();
        let mut task = self.task(&self.run, format!("[{}, {spins}]", number.unwrap_or_default()));
        task.id = id;
        task.embed.chain = Some(Value::from(rest).to_string().into());
        (task, steps)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
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
