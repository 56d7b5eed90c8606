//! The handle of one URL: its connections, shared by everything that this process does there.

use std::sync::Arc;

use rwork_protocol::service::{Error, RedactedUrl};

use crate::backend::{Hub, Keys, LateSubscribers, ServerClock};
use crate::broker::BrokerState;
use crate::link::{Link, Target};
use crate::options::Options;
use crate::results::Results;
use crate::url::Servers;

/// Broker and result backend on Redis. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Redis {
    pub(crate) inner: Arc<Inner>,
    /// Where records go that ride in commits.
    pub(crate) results: Option<Arc<Results>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    /// The servers, for people.
    pub(crate) url: RedactedUrl,
    pub(crate) target: Arc<Target>,
    /// For everything that answers at once: settling, renewing, publishing, records. Consumers and subscriptions have
    /// connections of their own.
    pub(crate) commands: Link,
    /// What publishers and consumers share.
    pub(crate) broker: BrokerState,
    /// The result backend's key names.
    pub(crate) result_keys: Keys,
    pub(crate) hub: Hub,
    /// Clock by which the server refuses a record that comes too late.
    pub(crate) clock: ServerClock,
    /// Publishes records again for whoever subscribes a moment too late.
    pub(crate) late: LateSubscribers,
}

impl Redis {
    /// Reaches the server: name, socket, TLS, login, version, database. Later connections are made by themselves.
    ///
    /// # Errors
    /// [`Error::Url`] for options out of range; [`Error::Unreachable`] where waiting may help (no address, connection
    /// refused, no answer in time); [`Error::Refused`] where somebody must mend something (certificate, password,
    /// permission, database number, not a Redis server, older than 6.2, a replica). Each with a hint of its own, each within
    /// 5 s, however many servers the URL names.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        options.check()?;
        let target = Arc::new(Target::new(&options)?);
        let commands = Link::new(Arc::clone(&target));
        commands.wire().await?;
        let result_keys = Keys::new(&options.transport.global_keyprefix);
        let broker = BrokerState::new(&options.transport);
        let (hub, url) = (Hub::new(Arc::clone(&target), commands.clone()), options.redacted());
        let late = LateSubscribers::new(commands.clone());
        let clock = ServerClock::default();
        let inner = Inner { options, url, target, commands, broker, result_keys, hub, clock, late };
        Ok(Self { inner: Arc::new(inner), results: None })
    }

    /// The same broker, whose commits carry records to where `results` keeps them: in the same step as the end of their
    /// delivery. Without effect unless both are [the same server](Self::is_same_server).
    #[must_use]
    pub fn with_results(&self, results: &Self) -> Self {
        let results = self.is_same_server(results).then(|| Arc::new(Results::new(self, results)));
        Self { inner: Arc::clone(&self.inner), results }
    }

    /// Compares addresses and login: results of `other` can be stored by a script of this one then. Database, prefix and
    /// TLS may differ. Another spelling of an address counts as another server.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.inner.options, &other.inner.options);
        let is_same = |(ours, theirs): (Servers, Servers)| ours.is_same(&theirs);
        ours.transport.master_name == theirs.transport.master_name
            && ours.servers().ok().zip(theirs.servers().ok()).is_some_and(is_same)
    }
}
