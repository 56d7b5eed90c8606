//! Facts about a server, for `rwork doctor`. Judges nothing, changes nothing.
//!
//! Only what AMQP tells: policies, disk and memory of the server are its management's to say. An alarm is seen by
//! publishing something that goes nowhere: whoever publishes during one is told why it must wait.

mod queue;

use std::time::Duration;

use lapin::options::{BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};
use rwork_protocol::service::Error;
use tokio::time::{Instant, timeout};

use crate::error::explain;
use crate::handle::{Amqp, Inner};
pub use queue::QueueInUse;

/// Enough for a median and a tail that mean something, over before anybody wonders.
const ROUND_TRIPS: usize = 100;
/// A server that takes messages confirms within milliseconds, and one that does not says so as fast.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(2);

/// What a server says of itself, and what was measured. `None` where it would not say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Examination {
    /// The server that was examined, without its password: of a fail-over list the one in use.
    pub server: String,
    /// `RabbitMQ`
    pub product: Option<String>,
    /// `3.10.8`
    pub version: Option<String>,
    /// `rabbit@host`
    pub cluster: Option<String>,
    /// Channels of a connection at most; 0: no limit.
    pub channel_max: u16,
    /// Bytes of a frame at most; a message's headers and properties must fit into one.
    pub frame_max: u32,
    /// Seconds between heartbeats; 0: none.
    pub heartbeat_s: u16,
    /// Round trips, in the order they were made.
    pub round_trips: Vec<Duration>,
    /// From publishing a message to its confirmation; `None`: it did not come in time.
    pub confirmed_in: Option<Duration>,
    /// Why it takes no messages now: `low on memory`, `low on disk`.
    pub blocked: Option<String>,
    /// The configured queues.
    pub queues: Vec<QueueInUse>,
}

impl Amqp {
    /// Asks the server what it is and how it fares.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub async fn examine(&self) -> Result<Examination, Error> {
        let inner = &self.inner;
        // A connection that publishes nothing is not blocked, whatever the server lacks.
        let wire = inner.consuming.wire().await?;
        let channel = wire.channel().await?;
        let round_trips = round_trips(inner, &channel).await?;
        let mut queues = Vec::with_capacity(inner.options.queues.len());
        for name in &inner.options.queues {
            queues.push(queue::look(inner, name).await?);
        }
        let (confirmed_in, blocked) = publish(inner).await?;
        let (greeting, agreed) = (wire.greeting.clone(), wire.agreed);
        Ok(Examination {
            server: wire.url.to_string(),
            product: greeting.product,
            version: greeting.version,
            cluster: greeting.cluster,
            channel_max: agreed.channel_max,
            frame_max: agreed.frame_max,
            heartbeat_s: agreed.heartbeat_s,
            round_trips,
            confirmed_in,
            blocked,
            queues,
        })
    }
}

/// The smallest question there is, which changes nothing on a channel of its own.
async fn round_trips(inner: &Inner, channel: &Channel) -> Result<Vec<Duration>, Error> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        let answered = channel.basic_qos(1, BasicQosOptions::default()).await;
        answered.map_err(|error| explain(inner.consuming.url(), "ask for an answer", error))?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// To no queue at all: how long that takes, and why it does not go on if it does not.
async fn publish(inner: &Inner) -> Result<(Option<Duration>, Option<String>), Error> {
    let mut blocked = inner.publishing.blocked();
    let confirmed = async {
        let channel = inner.publishing.channel().await?;
        let explain = |error| explain(inner.publishing.url(), "publish", error);
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(explain)?;
        let began = Instant::now();
        to_nobody(&channel).await.map_err(explain)?;
        let time = began.elapsed();
        // During an alarm the server takes a first message, and then no more.
        to_nobody(&channel).await.map_err(explain)?;
        Ok((Some(time), None))
    };
    let outcome = timeout(CONFIRM_PATIENCE, async {
        tokio::select! {
            confirmed = confirmed => confirmed,
            why = blocked.wait_for(Option::is_some) => Ok((None, why.ok().and_then(|why| why.clone()))),
        }
    });
    outcome.await.unwrap_or(Ok((None, None)))
}

async fn to_nobody(channel: &Channel) -> lapin::Result<()> {
    let nobody = ShortString::try_new(uuid::Uuid::new_v4().to_string()).unwrap_or_default();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish(ShortString::default(), nobody, options, b"", properties).await?.await.map(drop)
}
