//! One connection: commands, pipelines and scripts over it, until it breaks.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value};
use rwork_net::Monitor;
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::script::Call;
use crate::error;

/// What a server says of itself when we enter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// `7.0.15`
    pub(crate) version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub(crate) mode: String,
    /// `master` or `replica`.
    pub(crate) role: String,
}

/// One connection, never reconnected. Many tasks may use it at once.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) connection: MultiplexedConnection,
    /// Moves the bytes; ends when the connection does.
    pub(super) driver: AbortOnDropHandle<()>,
    /// Set by whoever sees that nothing good can come from here any more.
    pub(super) broken: AtomicBool,
    /// The server, for people.
    pub(crate) url: RedactedUrl,
    pub(crate) greeting: Greeting,
    /// How long an answer may take.
    pub(super) patience: Duration,
    pub(super) monitor: Monitor,
}

impl Wire {
    /// Sends one command; `act` says what for, as in "failed to `act`".
    ///
    /// # Cancel safety
    /// Once sent it is done, whether or not anybody waits.
    pub(crate) async fn command(&self, act: &str, cmd: &Cmd) -> Result<Value, Error> {
        self.ask(cmd).await.map_err(|failure| self.explain(act, failure))
    }

    /// Sends a pipeline; the first error of any of its commands is the error of all.
    ///
    /// # Cancel safety
    /// As [`Wire::command`].
    pub(crate) async fn pipeline(&self, act: &str, pipe: &Pipeline) -> Result<Vec<Value>, Error> {
        let mut connection = self.connection.clone();
        self.patiently(pipe.query_async(&mut connection)).await.map_err(|failure| self.explain(act, failure))
    }

    /// Calls a script, teaching it to the server first where it is not known.
    ///
    /// # Cancel safety
    /// As [`Wire::command`].
    pub(crate) async fn script(&self, act: &str, call: &Call<'_>) -> Result<Value, Error> {
        let mut answer = self.ask(&call.cmd).await;
        if answer.as_ref().is_err_and(error::is_unknown_script) {
            answer = match self.ask(&call.script.load()).await {
                Ok(_) => self.ask(&call.cmd).await,
                Err(failure) => Err(failure),
            };
        }
        answer.map_err(|failure| self.explain(act, failure))
    }

    /// Has the server tell, by a push, when something changes that a command has read which `CLIENT CACHING YES` precedes,
    /// once for each such command. Other reads are not watched: what they read changes with every task of every worker.
    pub(crate) async fn track(&self, act: &str) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        pipe.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN").arg("NOLOOP");
        // Rights may be given for one and not for the other.
        pipe.add_command(caching());
        self.pipeline(act, &pipe).await.map(drop)
    }

    /// Whether the connection is lost: every further call fails.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.driver.is_finished()
    }

    async fn ask(&self, cmd: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        self.patiently(connection.send_packed_command(cmd)).await?.extract_error()
    }

    async fn patiently<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        if self.is_broken() {
            return Err(error::lost());
        }
        let mut answer = pin!(answer);
        loop {
            match timeout(self.patience, &mut answer).await {
                Ok(answer) => return answer,
                // A long answer on a slow line.
                Err(_) if self.monitor.has_moved_within(self.patience) => {}
                Err(_) => return Err(error::silent(self.patience)),
            }
        }
    }

    /// In the words of the traits. A connection that failed in a way that says nothing good about the next answer is cut,
    /// so that all who wait on it know at once.
    fn explain(&self, act: &str, failure: RedisError) -> Error {
        if error::breaks(&failure) {
            self.cut();
        }
        error::explain(&self.url, act, failure)
    }

    /// Ends the connection.
    pub(crate) fn cut(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.driver.abort();
    }
}

/// Precedes a command whose reads are to be watched.
fn caching() -> Cmd {
    let mut cmd = redis::cmd("CLIENT");
    cmd.arg("CACHING").arg("YES");
    cmd
}
