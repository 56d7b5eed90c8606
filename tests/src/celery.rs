//! Real Celery: clients of every supported version, and Python workers on the same queues as rwork's.
//!
//! A [`Client`] is an app in the shared Python process of its version. What it has no method for is written in Python:
//! [`Client::run`].

mod worker;

use serde_json::{Value, json};

use crate::python::{Lane, Raised, Version};

pub use worker::{Pool, PythonWorker};

/// A Celery app as a producer, on a thread of its own.
#[derive(Debug)]
pub struct Client {
    lane: Lane,
    version: Version,
    settings: Value,
}

impl Client {
    /// An app with these settings, by Celery's lower-case names.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn open(version: Version, settings: Value) -> Result<Self, Raised> {
        let lane = version.client().lane();
        lane.run("own.update(open_app(settings))", json!({"settings": settings})).await?;
        Ok(Self { lane, version, settings })
    }

    /// The same app on another thread: for what must happen while this one waits.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn another(&self) -> Result<Self, Raised> {
        Self::open(self.version, self.settings.clone()).await
    }

    /// Which Celery it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Runs Python: the body of a function that sees `app`, its tasks by their short names (`add`, `hold`, …) and these
    /// arguments, a JSON object. `T` is how long to wait for what will come.
    ///
    /// # Errors
    /// The exception that it raised.
    pub async fn run(&self, code: &str, args: Value) -> Result<Value, Raised> {
        self.lane.run(code, args).await
    }

    /// [`Client::run`] without arguments.
    ///
    /// # Errors
    /// The exception that it raised.
    pub async fn eval(&self, code: &str) -> Result<Value, Raised> {
        self.lane.run(code, json!({})).await
    }

    /// `app.send_task(task, args, **options)`: returns the id.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn send(&self, task: &str, args: Value, options: Value) -> Result<String, Raised> {
        let code = "return app.send_task(task, arguments, **options).id";
        let id = self.run(code, json!({"task": task, "arguments": args, "options": options})).await?;
        Ok(id.as_str().unwrap_or_default().to_owned())
    }

    /// `AsyncResult(id).get()`.
    ///
    /// # Errors
    /// What the task raised, or that there is no result.
    pub async fn get(&self, id: &str) -> Result<Value, Raised> {
        self.run("return result(app, id).get(timeout=T)", json!({"id": id})).await
    }

    /// Sends a task without options and waits for its result.
    ///
    /// # Errors
    /// What the task or Celery raised.
    pub async fn call(&self, task: &str, args: Value) -> Result<Value, Raised> {
        let id = self.send(task, args, json!({})).await?;
        self.get(&id).await
    }

    /// `AsyncResult(id).state`.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn state(&self, id: &str) -> Result<String, Raised> {
        let state = self.run("return result(app, id).state", json!({"id": id})).await?;
        Ok(state.as_str().unwrap_or_default().to_owned())
    }

    /// The stored record, null if there is none.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn record(&self, id: &str) -> Result<Value, Raised> {
        self.run("return record(app, id)", json!({"id": id})).await
    }
}
