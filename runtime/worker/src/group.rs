//! A group of queues with a consumer of its own: its receiver, its committer, and what the pipe knows of them.
//!
//! Groups share nothing, so that one that is added, paused or removed ends nothing of another.

use std::sync::Arc;

use rwork_broker::Room;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commit::TaskCommit;
use crate::committer::Committer;
use crate::receive::{News, Receiver};
use crate::session::Session;
use crate::shared::Shared;

/// News of a receiver that wait for the pipe: one batch, and one word about the consumer.
const NEWS_MAX: usize = 4;

/// A group, as the pipe sees it.
pub(crate) struct Group {
    /// The consumer that stands.
    pub(crate) current: watch::Receiver<Option<Arc<Session>>>,
    /// What is to be committed. The committer ends when the last of its senders is gone.
    pub(crate) commits: mpsc::Sender<TaskCommit>,
    pub(crate) news: mpsc::Receiver<News>,
    asks: mpsc::Sender<Room>,
    /// The receiver was asked and has not answered.
    is_asked: bool,
    stop: CancellationToken,
    /// Takes nothing any more.
    pub(crate) is_stopped: bool,
    receiving: JoinSet<()>,
    committing: JoinSet<()>,
}

impl Group {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let (commits, committed) = mpsc::channel(shared.config.uncommitted_max());
        let (announced, current) = watch::channel(None);
        let (asks, asked) = mpsc::channel(1);
        let (told, news) = mpsc::channel(NEWS_MAX);
        let stop = CancellationToken::new();
        let receiver = Receiver {
            shared: Arc::clone(shared),
            commits: commits.downgrade(),
            current: announced,
            asks: asked,
            news: told,
            stop: stop.clone(),
        };
        let (mut receiving, mut committing) = (JoinSet::new(), JoinSet::new());
        receiving.spawn(receiver.run());
        committing.spawn(Committer::new(Arc::clone(shared), committed, current.clone()).run());
        Self { current, commits, news, asks, is_asked: false, stop, is_stopped: false, receiving, committing }
    }

    /// Asks for more, unless it is being taken.
    pub(crate) fn ask(&mut self, room: Room) {
        if !self.is_asked && !self.is_stopped && room.messages > 0 {
            self.is_asked = self.asks.try_send(room).is_ok();
        }
    }

    /// What was asked for came.
    pub(crate) fn answered(&mut self) {
        self.is_asked = false;
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Takes no more. What was taken already still comes, and then [`News::Stopped`].
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the committer once everything is committed. The receiver goes on mending the line meanwhile.
    pub(crate) async fn flush(self) -> Ending {
        let Self { current, commits, receiving, mut committing, .. } = self;
        drop(commits);
        while committing.join_next().await.is_some() {}
        Ending { current, _receiving: receiving }
    }
}

/// A group of which everything is committed, and whose consumer is still to be closed.
pub(crate) struct Ending {
    pub(crate) current: watch::Receiver<Option<Arc<Session>>>,
    _receiving: JoinSet<()>,
}
