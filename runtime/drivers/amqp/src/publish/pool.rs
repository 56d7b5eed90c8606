//! Channels to publish on, each in confirm mode and used by one batch at a time.

use std::sync::Mutex;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use rwork_protocol::service::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::broker::locked;
use crate::error::explain;
use crate::handle::Inner;

/// So many batches are under way at once. The server has 2047 channels for a connection by default; a few are enough for
/// it to write several batches to disk together.
const CHANNELS_MAX: usize = 16;

/// The channels of the publishing connection.
#[derive(Debug)]
pub(crate) struct Pool {
    permits: Semaphore,
    /// The one used last is used next. Held for one move.
    idle: Mutex<Vec<Channel>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { permits: Semaphore::new(CHANNELS_MAX), idle: Mutex::default() }
    }
}

impl Pool {
    /// A channel for one batch.
    pub(crate) async fn take<'a>(&'a self, inner: &Inner) -> Result<Lease<'a>, Error> {
        let permit = self.permits.acquire().await.map_err(|error| Error::Act {
            act: "wait for a channel".to_owned(),
            retryable: false,
            source: Box::new(error),
        })?;
        let channel = match self.idle() {
            Some(channel) => channel,
            None => open(inner).await?,
        };
        Ok(Lease { pool: self, channel, _permit: permit })
    }

    fn idle(&self) -> Option<Channel> {
        let mut idle = locked(&self.idle);
        // Those of a lost connection go with it.
        idle.retain(|channel| channel.status().connected());
        idle.pop()
    }
}

async fn open(inner: &Inner) -> Result<Channel, Error> {
    let channel = inner.publishing.channel().await?;
    match channel.confirm_select(ConfirmSelectOptions::default()).await {
        Ok(()) => Ok(channel),
        Err(error) => Err(explain(inner.publishing.url(), "ask for confirmations", error)),
    }
}

/// A channel that is ours until all is confirmed. Dropped before that, it is closed: nobody must get our answers.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    pool: &'a Pool,
    pub(crate) channel: Channel,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// Nothing is under way on it any more.
    pub(crate) fn give_back(self) {
        locked(&self.pool.idle).push(self.channel);
    }
}
