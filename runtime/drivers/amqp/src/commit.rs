//! Commits: what follows is published and confirmed, then deliveries end.
//!
//! AMQP has no transaction over both. All messages of a batch are published together, follow-ups and what must be kept
//! elsewhere; then the frames that let go of the originals are written, all at once, for each commit of which everything
//! is confirmed. A failure before that leaves its delivery held as it was, and a repeated batch publishes only what was
//! not confirmed.

mod progress;
mod taken;

use std::sync::Arc;

use rwork_broker::{Batch, Committed, Error, Part, Refusal};

use crate::consumer::Shared;
use crate::error::{chain, reply, reply_code};
use crate::publish::{self, Fate};
pub(crate) use progress::Progress;
use taken::{Taken, Under};

/// Commits a batch, or goes on with it.
pub(crate) async fn commit(
    shared: &Arc<Shared>,
    progress: &mut Progress,
    batch: &Batch,
) -> Result<Vec<Committed>, Error> {
    progress.begin(&shared.name, batch)?;
    let (mut taken, mut fates) = prepare(shared, progress, batch).await?;
    let sent = publish::deliver(&shared.inner, &mut fates).await;
    let left = judge(progress, &mut taken, fates);
    taken.send_on().await.map_err(passing)?;
    finish(shared, progress, taken);
    sent.map_err(passing)?;
    match left {
        Some(error) => Err(passing(error)),
        None => Ok(progress.answers()),
    }
}

/// Takes the deliveries that end, and makes ready what is to be published of commits that are not answered yet.
async fn prepare<'a>(
    shared: &'a Arc<Shared>,
    progress: &mut Progress,
    batch: &'a Batch,
) -> Result<(Taken<'a>, Vec<Fate>), Error> {
    let mut taken = Taken::take(shared, progress, &batch.commits);
    let mut fates = Vec::new();
    if taken.publishes_nothing() {
        return Ok((taken, fates));
    }
    // A server that refuses us altogether refuses no message.
    shared.inner.publishing.wire().await.map_err(|failure| passing(failure.into()))?;
    let mut refused = Vec::new();
    for under in &mut taken.under {
        let first = fates.len();
        let confirmed = progress.confirmed(under.place);
        fates.extend(under.fates(shared, confirmed).await.map_err(passing)?);
        under.published = fates.len() - first;
        // Nothing of a commit is published when a part of it can't be.
        let own = fates.get(first..).unwrap_or_default();
        if let Some(refusal) = own.iter().enumerate().find_map(|(nth, fate)| refusal(under, nth, fate)) {
            refused.push((under.place, refusal));
            fates.truncate(first);
        }
    }
    for (place, refusal) in refused {
        taken.abandon(place);
        progress.answer(place, Committed::Refused(refusal));
    }
    Ok((taken, fates))
}

/// Writes down what is known of each commit now; those of which something is missing are taken no further. Returns why
/// one of them must be tried again.
fn judge(progress: &mut Progress, taken: &mut Taken<'_>, fates: Vec<Fate>) -> Option<Error> {
    let mut left = None;
    let mut fates = fates.into_iter();
    let mut incomplete = Vec::new();
    for under in &taken.under {
        let own: Vec<Fate> = fates.by_ref().take(under.published).collect();
        progress.confirm(under.place, &own);
        if let Some(refusal) = own.iter().enumerate().find_map(|(nth, fate)| refusal(under, nth, fate)) {
            progress.answer(under.place, Committed::Refused(refusal));
            incomplete.push(under.place);
        } else if own.iter().any(|fate| !matches!(fate, Fate::Kept)) {
            incomplete.push(under.place);
        }
        left = left.or_else(|| own.into_iter().find_map(retryable));
    }
    incomplete.into_iter().for_each(|place| taken.abandon(place));
    left
}

/// Why a message can never be published.
fn refusal(under: &Under<'_>, nth: usize, fate: &Fate) -> Option<Refusal> {
    let Fate::Refused(error) = fate else { return None };
    let is_follow_up = nth < under.commit.publish.len();
    let part = if is_follow_up { Part::FollowUp } else { Part::Settlement };
    is_final(error).then(|| Refusal { part, why: chain(error) })
}

fn retryable(fate: Fate) -> Option<Error> {
    match fate {
        Fate::Refused(error) if !is_final(&error) => Some(error),
        _ => None,
    }
}

/// Somebody else's exclusive queue may be free one day, but nothing else is to wait for that.
fn is_final(error: &Error) -> bool {
    let Error::Act { source, .. } = error else { return !error.is_retryable() };
    let source = source.downcast_ref::<lapin::Error>();
    let code = source.and_then(reply_code).map(|(code, _)| code);
    !error.is_retryable() || code == Some(reply::RESOURCE_LOCKED)
}

/// Lets go of the deliveries whose commits are complete.
fn finish(shared: &Arc<Shared>, progress: &mut Progress, taken: Taken<'_>) {
    taken.under.iter().for_each(|under| progress.answer(under.place, Committed::Done));
    let finished = taken.finish();
    for (place, tags) in finished.sheltered.iter().enumerate() {
        shared.ack_sheltered(place, tags);
    }
    if !finished.kept.is_empty() {
        shared.let_go_soon(finished.kept);
    }
    shared.bell.notify_one();
}

/// The connection for publishing may be lost while what is held is still ours: trying again is right.
fn passing(error: Error) -> Error {
    match error {
        Error::Unreachable { .. } | Error::Refused { .. } => {
            Error::Act { act: "publish what follows".to_owned(), retryable: true, source: Box::new(error) }
        }
        error => error,
    }
}
