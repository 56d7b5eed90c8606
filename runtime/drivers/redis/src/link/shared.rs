//! A connection that is made again on demand, shared by many tasks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::AsyncPushSender;
use redis::{Cmd, Pipeline, Value};
use rwork_net::{Connector, Failure, Reconnecting};
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::time::sleep;

use super::script::{Call, Script};
use super::target::{Pushes, Target};
use super::wire::Wire;

/// Suspicions within the time that an answer may take: a healthy server answers within a sixth of it.
const SUSPICIONS: u32 = 6;
/// Is held up by whatever holds up our calls: a paused fail-over lets a handshake through, and a busy script too.
static PROBE: Script = Script::new("return 1");

/// A connection that is made again on demand. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    shared: Reconnecting<WithPushes>,
}

struct WithPushes {
    target: Arc<Target>,
    pushes: Option<Pushes>,
}

impl Connector for WithPushes {
    type Connection = Wire;

    fn url(&self) -> &RedactedUrl {
        &self.target.url
    }

    async fn connect(&self) -> Result<Wire, Failure> {
        self.target.connect(self.pushes.clone()).await
    }

    fn is_lost(wire: &Wire) -> bool {
        wire.is_broken()
    }
}

impl Link {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { shared: Reconnecting::new(WithPushes { target, pushes: None }) }
    }

    /// The same, and each connection tells what the server says unasked.
    pub(crate) fn with_pushes(target: Arc<Target>, pushes: Pushes) -> Self {
        Self { shared: Reconnecting::new(WithPushes { target, pushes: Some(pushes) }) }
    }

    fn target(&self) -> &Target {
        &self.shared.connector().target
    }

    /// The servers, for people.
    pub(crate) fn url(&self) -> &RedactedUrl {
        &self.target().url
    }

    /// Sends one command; see [`Wire::command`].
    pub(crate) async fn command(&self, act: &str, cmd: &Cmd) -> Result<Value, Error> {
        let wire = self.wire().await?;
        self.watched(&wire, wire.command(act, cmd)).await
    }

    /// Sends a pipeline; see [`Wire::pipeline`].
    pub(crate) async fn pipeline(&self, act: &str, pipe: &Pipeline) -> Result<Vec<Value>, Error> {
        let wire = self.wire().await?;
        self.pipeline_on(&wire, act, pipe).await
    }

    /// Sends a pipeline over this connection of ours and no other.
    pub(crate) async fn pipeline_on(
        &self,
        wire: &Wire,
        act: &str,
        pipe: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        self.watched(wire, wire.pipeline(act, pipe)).await
    }

    /// Calls a script; see [`Wire::script`].
    pub(crate) async fn script(&self, act: &str, call: &Call<'_>) -> Result<Value, Error> {
        let wire = self.wire().await?;
        self.watched(&wire, wire.script(act, call)).await
    }

    /// A connection of its own, which is not made again. `pushes` is told what the server says unasked, and at last
    /// [`redis::PushKind::Disconnection`]; it must not block.
    pub(crate) async fn dedicated(&self, pushes: impl AsyncPushSender) -> Result<Wire, Error> {
        // Nobody listens any more: then nobody needs to know.
        let tell: Pushes = Arc::new(move |info| drop(pushes.send(info)));
        Ok(self.target().connect(Some(tell)).await?)
    }

    /// The connection that stands, or a new one.
    ///
    /// # Cancel safety
    /// Cancel safe: an attempt goes on for whoever asks next.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, Failure> {
        self.shared.connection().await
    }

    /// Waits for an answer of this connection, or one of its own.
    pub(crate) async fn watched<T>(
        &self,
        wire: &Wire,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = answer => answer,
            never = self.suspect(wire) => match never {},
        }
    }

    /// When nothing comes for a while, a second connection tells a busy or paused server, which would not answer there either,
    /// from a dead connection or a lost master: that is cut, so that whoever waits on it learns it long before its time is
    /// over.
    async fn suspect(&self, wire: &Wire) -> Infallible {
        let suspicion = suspicion(wire);
        loop {
            sleep(suspicion).await;
            let is_silent = || !wire.monitor.has_moved_within(suspicion);
            // What was only late came while the second one was served.
            if is_silent() && self.is_served().await && is_silent() {
                wire.cut();
            }
        }
    }

    /// Whether the server runs a script for a connection that comes now.
    async fn is_served(&self) -> bool {
        let Ok(second) = self.target().connect(None).await else { return false };
        second.script("probe the server", &PROBE.call(&[""; 0])).await.is_ok()
    }
}

impl std::fmt::Debug for WithPushes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithPushes").field("target", &self.target).finish_non_exhaustive()
    }
}

fn suspicion(wire: &Wire) -> Duration {
    wire.patience / SUSPICIONS
}
