//! Mistakes of the worker, made on purpose: the hooks in its steps lead here.

use rwork_backend::Store;
use tokio::time::{Duration, sleep};

use super::Mistake;
use crate::commit::TaskCommit;
use crate::shared::Shared;

const PAUSE: Duration = Duration::from_millis(50);

/// What must be in a commit is done before it, or set aside for later.
pub(crate) async fn before_commit(shared: &Shared, open: &mut [TaskCommit]) -> Vec<Store> {
    if shared.errs(Mistake::PublishOutside) {
        let publish: Vec<_> =
            open.iter_mut().flat_map(|commit| std::mem::take(&mut commit.effects.follow_ups)).collect();
        while !publish.is_empty()
            && shared.broker.publish_all(publish.clone()).await.is_err_and(|error| error.is_retryable())
        {
            sleep(PAUSE).await;
        }
    }
    if shared.errs(Mistake::AckBeforeStore) && !shared.commits_records() {
        return open.iter_mut().flat_map(|commit| std::mem::take(&mut commit.effects.records)).collect();
    }
    Vec::new()
}

/// What was set aside follows.
pub(crate) async fn after_commit(shared: &Shared, aside: Vec<Store>) {
    while !aside.is_empty()
        && shared.backend.store(aside.clone()).await.is_err_and(|error| error.is_retryable())
    {
        sleep(PAUSE).await;
    }
}
