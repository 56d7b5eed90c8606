//! The handle of one URL: its connections, shared by everything that this process does there.

use std::sync::Arc;

use rwork_protocol::service::{Error, RedactedUrl};

use crate::backend::Replies;
use crate::broker::BrokerState;
use crate::link::{Link, Target};
use crate::options::Options;

/// Broker and rpc result backend on RabbitMQ. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Amqp {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    /// The servers, for people.
    pub(crate) url: RedactedUrl,
    /// For everything that is published: the server blocks it while it lacks memory or disk.
    pub(crate) publishing: Link,
    /// For consuming, acks and looking through queues. Nothing is ever published here, so that the server never blocks it.
    pub(crate) consuming: Link,
    /// What publishers and consumers share.
    pub(crate) broker: BrokerState,
    /// Results that come back to this process.
    pub(crate) replies: Replies,
}

impl Amqp {
    /// Reaches the server: name, socket, TLS, login, virtual host. Later connections are made by themselves.
    ///
    /// # Errors
    /// [`Error::Url`] for options out of range; [`Error::Unreachable`] where waiting may help (no address, connection
    /// refused, no answer in time); [`Error::Refused`] where somebody must mend something (certificate, user, password,
    /// virtual host, permission, not RabbitMQ). Each with a hint of its own, each within 5 s, however many
    /// servers the URL names.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        options.check()?;
        let target = Arc::new(Target::new(&options)?);
        let publishing = Link::new(Arc::clone(&target), "publishing");
        let consuming = Link::new(target, "consuming");
        publishing.wire().await?;
        let url = options.servers()?;
        let (broker, replies) = (BrokerState::default(), Replies::default());
        Ok(Self { inner: Arc::new(Inner { options, url, publishing, consuming, broker, replies }) })
    }
}
