//! The worker's surroundings together with what runs its tasks.

use std::sync::Arc;

use rwork_broker::{Publish, Route};
use rwork_canvas::{Context, Outgoing};

use crate::executor::{Executor, TaskVersion};
use crate::shared::Shared;

pub(crate) struct Parts<E> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) executor: E,
}

impl<E: Executor> Parts<E> {
    /// Gives canvas what it needs from outside.
    pub(crate) fn with_context<T>(&self, compute: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let shared = &self.shared;
        let mut ids = || shared.new_id();
        compute(&mut Context { now: shared.clock.now(), origin: Some(&shared.config.node), ids: &mut ids })
    }

    /// What goes out, addressed: to the queue that it names, else the one that its task names here, else the default one.
    /// A task of ours also fills in the priority and expiry that nobody named.
    pub(crate) fn publish(&self, outgoing: Outgoing) -> Publish {
        let Outgoing { queue, mut message, eta } = outgoing;
        let task = self.executor.lookup(message.headers.task.as_str());
        let options = task.as_ref().map(TaskVersion::options);
        if let Some(options) = options {
            message.properties.priority = message.properties.priority.or(options.priority);
        }
        let queue = queue
            .or_else(|| options.and_then(|options| options.queue.clone()))
            .unwrap_or_else(|| self.shared.config.default_queue.clone());
        let now = self.shared.clock.now();
        let not_before = eta.filter(|eta| self.shared.delays(eta.since(now)));
        Publish { route: Route::queue(&queue), message: message.encode(), not_before }
    }

    pub(crate) fn publish_all(&self, outgoing: Vec<Outgoing>) -> Vec<Publish> {
        outgoing.into_iter().map(|outgoing| self.publish(outgoing)).collect()
    }
}
