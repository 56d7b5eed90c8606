//! The consumer trait on the file.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rwork_broker::{
    Batch, Commit, Committed, Consume, Consumer, Delivery, Error, Part, Receipt, Refusal, Resumed, Room,
};

use crate::acts::Standing;
use crate::acts::commit::{self, Item};
use crate::acts::session::{Close, Open, Resume};
use crate::consumer_state::Mailbox;
use crate::error::{self, Failure};
use crate::files::FileId;
use crate::handle::Inner;
use crate::presence::Presence;

/// A consumer. Dropped without `close` it is dead to the others, as after a crash.
#[derive(Debug)]
pub(crate) struct EmbeddedConsumer {
    inner: Arc<Inner>,
    owner: i64,
    name: String,
    mailbox: Arc<Mailbox>,
    /// Locked as long as this consumer is not dropped.
    presence: Arc<Presence>,
    /// The file that its row is in.
    file: FileId,
    /// Number of the last batch that was sent.
    sent: AtomicU64,
}

impl EmbeddedConsumer {
    /// Locks a file of its own, then writes a row.
    pub(crate) async fn start(inner: Arc<Inner>, options: Consume) -> Result<Self, Error> {
        // Random, so that no consumer of any process ever had it; positive, as SQLite's row ids.
        let owner = fastrand::i64(1..);
        let folder = inner.files.consumers.clone();
        let presence = inner.blocking(move || Presence::take(&folder, owner)).await?;
        let mailbox = Arc::new(Mailbox::new(options.name.clone()));
        let open = Open {
            owner,
            name: options.name.clone(),
            queues: options.queues.into(),
            unsettled_max: options.unsettled_max.max(1),
            mailbox: Arc::clone(&mailbox),
        };
        let file = inner.act(open).await.inspect_err(|_| presence.remove())?;
        let (presence, sent) = (Arc::new(presence), AtomicU64::new(0));
        Ok(Self { inner, owner, name: options.name, mailbox, presence, file, sent })
    }

    fn lost(&self) -> Error {
        Error::LeaseLost { name: self.name.clone() }
    }

    fn item(&self, commit: &Commit) -> Result<Item, Refusal> {
        let refused = |part| move |error: Error| Refusal { part, why: error::one_line(&error) };
        let records = commit.records.iter().map(|store| self.inner.entry(store));
        let posts = commit.publish.iter().map(|publish| self.inner.post(publish.clone()));
        Ok(Item {
            records: records.collect::<Result<_, _>>().map_err(refused(Part::Record))?,
            posts: posts.collect::<Result<_, _>>().map_err(refused(Part::FollowUp))?,
            ending: commit.ending.clone(),
        })
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn resume(&self) -> Result<Resumed, Error> {
        let (presence, files, file) = (Arc::clone(&self.presence), self.inner.files.clone(), self.file);
        let stands = move || {
            if files.is_still(file)? { presence.restore().map(|()| true) } else { Ok(false) }
        };
        if !self.inner.blocking(stands).await? {
            return Ok(Resumed::Forgotten);
        }
        let mut differences = match self.inner.act(Resume { owner: self.owner }).await? {
            Standing::Ours(differences) => differences,
            Standing::Dead => return Ok(Resumed::Dead),
            Standing::Forgotten => return Ok(Resumed::Forgotten),
        };
        // What was taken and never returned was never the caller's.
        let lost: HashSet<Receipt> = differences.gone.iter().copied().collect();
        let unknown = self.mailbox.drop_these(&lost);
        differences.gone.retain(|receipt| !unknown.contains(receipt));
        let fresh = differences.fresh.into_iter().map(|(_, delivery)| delivery).collect();
        Ok(Resumed::Stands { fresh, gone: differences.gone })
    }

    async fn receive(&self, room: Room) -> Result<Vec<Delivery>, Error> {
        if room.messages == 0 {
            return Ok(Vec::new());
        }
        let _withdraw = Withdraw(&self.mailbox);
        loop {
            if let Some(answer) = self.mailbox.take_or_ask(room) {
                return answer;
            }
            self.inner.writes.ring();
            if self.inner.writes.is_closed() {
                return Err(error::closed(&self.inner.url));
            }
            // `notify_one` keeps one permit, so that an arrival between the look and this wait is not missed.
            self.mailbox.arrived.notified().await;
        }
    }

    async fn commit(&self, batch: &Batch) -> Result<Vec<Committed>, Error> {
        let items = batch.commits.iter().map(|commit| self.item(commit)).collect();
        let is_repeated = self.sent.swap(batch.number, Ordering::Relaxed) == batch.number;
        let commit = commit::Commit { owner: self.owner, number: batch.number, is_repeated, items };
        match self.inner.act(commit).await.map_err(error::of_no_item)? {
            Standing::Ours(answers) => Ok(answers),
            Standing::Dead => Err(self.lost()),
            Standing::Forgotten => Err(error::moved(&self.inner.url, None)),
        }
    }

    async fn renew(&self) -> Result<bool, Error> {
        let (owner, file, files) = (self.owner, self.file, self.inner.files.clone());
        let presence = Arc::clone(&self.presence);
        let look = move |db: &rusqlite::Connection| {
            let row = db.prepare_cached("SELECT 1 FROM session WHERE owner = ?1")?.exists([owner])?;
            // One that can't be looked at is there all the same.
            Ok(row && presence.stands() && files.is_still(file).unwrap_or(true))
        };
        self.inner.read("look after a consumer", look).await
    }

    async fn close(&self, started: &[Receipt]) -> Result<(), Error> {
        self.inner.act(Close { owner: self.owner, started: started.to_vec() }).await?;
        let presence = Arc::clone(&self.presence);
        let remove = move || {
            presence.remove();
            Ok(())
        };
        self.inner.blocking(remove).await
    }
}

impl Inner {
    /// Has something done to small files, away from the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let done =
            tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|error| Failure::from(error).explain(&self.url, "lock a consumer's file"))
    }
}

/// Takes the wish back when the call ends, cancelled or not.
struct Withdraw<'a>(&'a Mailbox);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.0.ask_no_more();
    }
}
