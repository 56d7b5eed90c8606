//! Watching results: one connection for all watches of a process, one subscription per record however many watch it.
//!
//! A task of its own subscribes, reads what stands there, and unsubscribes, in this order for each channel. When the
//! connection is lost it makes another one, subscribes and reads again. Nothing is polled.

mod keeper;
mod table;

use std::sync::{Arc, OnceLock};

use futures_util::{Stream, stream};
use rwork_backend::Error;
use rwork_protocol::Record;
use rwork_protocol::service::RedactedUrl;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use self::keeper::Keeper;
use self::table::{Seat, Table};
use super::decode;
use crate::link::{Link, Target};

/// Watches that wait to be subscribed. More wait for their turn: subscribing goes a batch at a time.
const ASKS_MAX: usize = 1024;

/// The watches of one handle.
#[derive(Debug)]
pub(crate) struct Hub {
    target: Arc<Target>,
    /// Reads what stands there: the server cuts a subscriber who is behind, be it by a few large records.
    commands: Link,
    table: Arc<Table>,
    /// Started by the first watch.
    keeper: OnceLock<(mpsc::Sender<Ask>, AbortOnDropHandle<()>)>,
}

/// A watch that wants to be subscribed.
#[derive(Debug)]
struct Ask {
    channel: String,
    reply: oneshot::Sender<Result<(), Error>>,
}

impl Hub {
    pub(crate) fn new(target: Arc<Target>, commands: Link) -> Self {
        Self { target, commands, table: Arc::default(), keeper: OnceLock::new() }
    }

    /// Watches one channel from what stands there now.
    ///
    /// # Cancel safety
    /// Cancel safe: a watch that nobody waits for ends.
    pub(super) async fn watch(
        &self,
        channel: String,
    ) -> Result<impl Stream<Item = Result<Record, Error>> + Send + use<>, Error> {
        let seat = self.table.sit(channel);
        let (reply, replied) = oneshot::channel();
        let ask = Ask { channel: seat.channel.clone(), reply };
        let closed = || Error::Closed { name: self.target.url.to_string() };
        self.asks().send(ask).await.map_err(|_| closed())?;
        replied.await.map_err(|_| closed())??;
        Ok(records(seat, self.target.url.clone()))
    }

    fn asks(&self) -> &mpsc::Sender<Ask> {
        let (asks, _) = self.keeper.get_or_init(|| {
            let (asks, asked) = mpsc::channel(ASKS_MAX);
            let keeper = Keeper::new(&self.target, self.commands.clone(), Arc::clone(&self.table), asked);
            (asks, AbortOnDropHandle::new(tokio::spawn(keeper.run())))
        });
        asks
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.table.end();
    }
}

/// The records of a seat, until a ready state.
fn records(seat: Seat, url: RedactedUrl) -> impl Stream<Item = Result<Record, Error>> + Send {
    stream::unfold(Some(seat), move |seat| {
        let url = url.clone();
        async move {
            let mut seat: Seat = seat?;
            let record = decode(seat.next().await?, &url);
            let is_last = record.as_ref().is_ok_and(|record| record.status.is_ready());
            Some((record, (!is_last).then_some(seat)))
        }
    })
}
