//! A group of queues with a consumer of its own: its receiver, its committer, and what the pipe knows of them.
//!
//! Groups share nothing, so that one that is added, paused or removed ends nothing of another.

use std::sync::Arc;

use rwork_broker::Room;
use rwork_protocol::QueueName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commit::TaskCommit;
use crate::committer::Committer;
use crate::receive::{News, Receiver};
use crate::session::Session;
use crate::shared::Shared;

/// Which group, for the life of a worker.
pub(crate) type GroupId = usize;

/// A group, as the pipe sees it.
pub(crate) struct Group {
    /// The consumer that stands.
    current: watch::Receiver<Option<Arc<Session>>>,
    /// Commits on their way out. The committer ends when the last of its senders is gone.
    commits: mpsc::Sender<TaskCommit>,
    asks: mpsc::Sender<Room>,
    /// Messages that the receiver was asked for and has not answered; 0: it was not asked.
    asked: usize,
    stop: CancellationToken,
    /// Takes nothing any more.
    pub(crate) is_stopped: bool,
    receiving: JoinSet<()>,
    committing: JoinSet<()>,
}

impl Group {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        id: GroupId,
        queues: Vec<QueueName>,
        news: mpsc::Sender<(GroupId, News)>,
    ) -> Self {
        let (commits, committed) = mpsc::channel(shared.config.uncommitted_max());
        let (announced, current) = watch::channel(None);
        let (asks, to_receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let receiver = Receiver {
            shared: Arc::clone(shared),
            id,
            queues,
            commits: commits.downgrade(),
            current: announced,
            asks: to_receiver,
            news,
            stop: stop.clone(),
        };
        let (mut receiving, mut committing) = (JoinSet::new(), JoinSet::new());
        receiving.spawn(receiver.run());
        committing.spawn(Committer::new(Arc::clone(shared), committed, current.clone()).run());
        Self { current, commits, asks, asked: 0, stop, is_stopped: false, receiving, committing }
    }

    /// Asks for more, unless it is being taken.
    pub(crate) fn ask(&mut self, room: Room) {
        let may = self.asked == 0 && !self.is_stopped && room.messages > 0;
        if may && self.asks.try_send(room).is_ok() {
            self.asked = room.messages;
        }
    }

    /// Notes that the messages asked for came.
    pub(crate) fn answered(&mut self) {
        self.asked = 0;
    }

    /// Messages that may come any moment.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// Takes no more. What was taken already still comes, and then [`News::Stopped`].
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the committer once everything is committed. The receiver goes on mending the line meanwhile.
    pub(crate) async fn flush(self) -> Flushed {
        let Self { current, commits, receiving, mut committing, .. } = self;
        drop(commits);
        while committing.join_next().await.is_some() {}
        Flushed { current, _receiving: receiving }
    }
}

/// A group of which everything is committed, and whose consumer is still to be closed.
pub(crate) struct Flushed {
    pub(crate) current: watch::Receiver<Option<Arc<Session>>>,
    _receiving: JoinSet<()>,
}
