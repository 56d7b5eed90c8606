//! The client.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rwork_backend::ResultBackend;
use rwork_broker::{Broker, Capabilities, Publish, Route};
use rwork_protocol::{NewTask, QueueName, Record, State, TaskId, TaskMessage, Timestamp};

use crate::Error;

/// Sends tasks and reads their results. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    broker: Arc<dyn Broker>,
    backend: Arc<dyn ResultBackend>,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    origin: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("broker", &self.broker)
            .field("backend", &self.backend)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client on the system's clock.
    pub fn new(broker: Arc<dyn Broker>, backend: Arc<dyn ResultBackend>) -> Self {
        Self { broker, backend, now: Arc::new(|| Timestamp::from_system(SystemTime::now())), origin: None }
    }

    /// The same on another wall clock, by which `eta` and `expires` are reckoned.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.now = Arc::new(now);
        self
    }

    /// The same, naming itself in every message: `gen<pid>@<host>` in Celery's form.
    #[must_use]
    pub fn with_origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Sends one task and returns its id when the broker has it durably.
    ///
    /// # Errors
    /// When its arguments can't be sent, it is too large for the broker, or the broker doesn't take it.
    ///
    /// # Cancel safety
    /// A cancelled call may or may not have sent the task.
    pub async fn send(&self, task: NewTask, queue: &QueueName) -> Result<TaskId, Error> {
        let reply_to = self.reply_to(1, queue).await?;
        let message = self.build(task, reply_to.as_deref())?;
        let id = message.headers.id.clone();
        self.publish(vec![self.publication(message, queue)?], queue).await?;
        Ok(id)
    }

    /// Sends many tasks in one round trip and returns their ids, in their order, when the broker has all of them durably.
    ///
    /// # Errors
    /// As [`Client::send`], for the first task that can't be sent; none is sent then. When the broker fails, a part may have
    /// been taken unless it declares [`Capabilities::atomic_publish`].
    ///
    /// # Cancel safety
    /// A cancelled call may or may not have sent the tasks.
    pub async fn send_many(&self, tasks: Vec<NewTask>, queue: &QueueName) -> Result<Vec<TaskId>, Error> {
        let mut ids = Vec::with_capacity(tasks.len());
        let mut batch = Vec::with_capacity(tasks.len());
        let reply_to = self.reply_to(tasks.len(), queue).await?;
        for task in tasks {
            let message = self.build(task, reply_to.as_deref())?;
            ids.push(message.headers.id.clone());
            batch.push(self.publication(message, queue)?);
        }
        if !batch.is_empty() {
            self.publish(batch, queue).await?;
        }
        Ok(ids)
    }

    /// The record of a task; `None`: nothing is known of it (PENDING), or its record has expired.
    ///
    /// # Errors
    /// When the backend can't be read.
    pub async fn result(&self, id: &TaskId) -> Result<Option<Record>, Error> {
        let records = self.backend.get(std::slice::from_ref(id)).await;
        let records = records.map_err(|source| Error::Read { id: id.clone(), source })?;
        Ok(records.into_iter().next().flatten())
    }

    /// Waits for a task to end and returns its last record: SUCCESS, FAILURE or REVOKED. `timeout` none: for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the state that was seen last, or when the backend can't be read.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is consumed by waiting.
    pub async fn wait(&self, id: &TaskId, timeout: Option<Duration>) -> Result<Record, Error> {
        let mut seen = State::Pending;
        let ready = self.until_ready(id, &mut seen);
        let Some(timeout) = timeout else { return ready.await };
        match tokio::time::timeout(timeout, ready).await {
            Ok(record) => record,
            Err(_) => Err(Error::TimedOut { id: id.clone(), timeout, state: seen }),
        }
    }

    /// The record that stands, if any, then each change, until the task has ended.
    ///
    /// # Errors
    /// When the backend can't be read; items carry later failures.
    pub async fn watch(
        &self,
        id: &TaskId,
    ) -> Result<BoxStream<'static, Result<Record, rwork_backend::Error>>, Error> {
        self.backend.watch(id).await.map_err(|source| Error::Read { id: id.clone(), source })
    }

    /// Deletes a task's record; true when there was one. The task itself is not touched.
    ///
    /// # Errors
    /// When the backend can't be reached.
    pub async fn forget(&self, id: &TaskId) -> Result<bool, Error> {
        self.backend.forget(id).await.map_err(|source| Error::Forget { id: id.clone(), source })
    }

    async fn until_ready(&self, id: &TaskId, seen: &mut State) -> Result<Record, Error> {
        let mut records = self.watch(id).await?;
        while let Some(record) = records.next().await {
            let record = record.map_err(|source| Error::Read { id: id.clone(), source })?;
            if record.status.is_ready() {
                return Ok(record);
            }
            *seen = record.status;
        }
        Err(Error::Ended { id: id.clone(), state: seen.clone() })
    }

    /// Where the results of what is sent come back to, if they are messages.
    async fn reply_to(&self, count: usize, queue: &QueueName) -> Result<Option<String>, Error> {
        let reply_to = self.backend.reply_to().await;
        reply_to.map_err(|source| Error::Send { count, queue: queue.clone(), source })
    }

    fn build(&self, mut task: NewTask, reply_to: Option<&str>) -> Result<TaskMessage, Error> {
        if task.reply_to.is_none() {
            task.reply_to = reply_to.map(str::to_owned);
        }
        if task.origin.is_none() {
            task.origin.clone_from(&self.origin);
        }
        let name = task.task.clone();
        task.build((self.now)()).map_err(|source| Error::Arguments { task: name, source })
    }

    /// A broker that can hold messages back does; for others the worker waits by the message's own `eta`.
    fn publication(&self, message: TaskMessage, queue: &QueueName) -> Result<Publish, Error> {
        let Capabilities { delayed, message_bytes_max: limit, .. } = self.broker.capabilities();
        let not_before = message.headers.eta.filter(|_| delayed);
        let encoded = message.encode();
        let size = encoded.size();
        if size > limit {
            return Err(Error::TooLarge { task: message.headers.task, size, limit });
        }
        Ok(Publish { route: Route::queue(queue), message: encoded, not_before })
    }

    async fn publish(&self, batch: Vec<Publish>, queue: &QueueName) -> Result<(), Error> {
        let count = batch.len();
        let sent = self.broker.publish_all(batch).await;
        sent.map_err(|source| Error::Send { count, queue: queue.clone(), source })
    }
}
