//! A consumer's connection to take by, and what the server tells over it.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use redis::{PushInfo, PushKind, Value};
use rwork_protocol::service::Error;
use tokio::sync::Notify;

use crate::broker::locked;
use crate::error;
use crate::handle::Inner;
use crate::link::Wire;
use crate::sources::Sources;

/// One line of a consumer. A new one takes its place when it is lost.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) wire: Wire,
    /// The server tells of changes; otherwise it must be asked.
    pub(crate) is_told: bool,
    pub(crate) news: Arc<News>,
}

/// What the server has told and nobody has looked at.
#[derive(Debug)]
pub(crate) struct News {
    /// Queue by each of its keys.
    queues: HashMap<Vec<u8>, usize>,
    /// Queues that were changed. Held for a few moves.
    changed: Mutex<BTreeSet<usize>>,
    /// Rung when something was told.
    pub(crate) bell: Notify,
}

impl Line {
    /// Makes a connection, and has the server tell of changes.
    pub(crate) async fn open(inner: &Inner, sources: &Sources) -> Result<Self, Error> {
        let news = Arc::new(News::new(sources));
        let told = Arc::clone(&news);
        let wire = inner
            .commands
            .dedicated(move |info| {
                told.take_in(info);
                Ok::<_, Infallible>(())
            })
            .await?;
        let is_told = match wire.track("be told of messages").await {
            Ok(()) => true,
            Err(Error::Unreachable { url, source }) => return Err(Error::Unreachable { url, source }),
            Err(error) => {
                tracing::warn!(%error, "CLIENT TRACKING unavailable: polling, which is slower");
                false
            }
        };
        Ok(Self { wire, is_told, news })
    }

    /// The error of a line that was lost.
    pub(crate) fn lost(&self, act: &str) -> Error {
        error::explain(&self.wire.url, act, error::lost())
    }

    /// Ends it: calls and waits on it fail at once.
    pub(crate) fn cut(&self) {
        self.wire.cut();
        self.news.bell.notify_one();
    }
}

impl News {
    fn new(sources: &Sources) -> Self {
        let keys = |(queue, source): (usize, &crate::sources::Source)| {
            source.told_by().map(|key| (key.clone().into_bytes(), queue)).collect::<Vec<_>>()
        };
        let queues = sources.queues.iter().enumerate().flat_map(keys).collect();
        Self { queues, changed: Mutex::default(), bell: Notify::new() }
    }

    fn take_in(&self, info: PushInfo) {
        if info.kind == PushKind::Invalidate {
            let mut changed = locked(&self.changed);
            match info.data.into_iter().next() {
                Some(Value::Array(keys)) => {
                    let of = |key: &Value| match key {
                        Value::BulkString(key) => self.queues.get(key).copied(),
                        _ => None,
                    };
                    changed.extend(keys.iter().filter_map(of));
                }
                // The server forgot all: it was flushed.
                _ => changed.extend(self.queues.values().copied()),
            }
        }
        self.bell.notify_one();
    }

    /// Queues that were changed since they were asked for last.
    pub(crate) fn changed(&self) -> BTreeSet<usize> {
        std::mem::take(&mut *locked(&self.changed))
    }
}
