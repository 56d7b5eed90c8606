//! Effects of an outcome, as one numbered step.

use rwork_broker::{Batch, Error, Part};

use super::*;

pub(super) async fn a_repeated_number_changes_nothing(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("repeated").await?;
    let (queue, next) = (queue("celery")?, queue("next")?);
    broker.publish_all(numbered(&queue, 0..3)).await?;
    let consumer = Consuming::start(&broker, &[&queue, &next]).await?;
    let [acked, released, held] =
        consumer.receive(3).await?.try_into().map_err(|_| anyhow::anyhow!("not three"))?;
    let lost = end(acked.clone(), Disposition::Ack);
    let batch = consumer.batch(vec![
        commit(Ending::Settle(acked.settle(Disposition::Ack)), numbered(&next, 10..12)),
        end(released, Disposition::Release),
        commit(Ending::Holds(held.receipt), numbered(&next, 12..13)),
        lost,
    ]);
    let answers = consumer.consumer.commit(&batch).await?;
    let done = Committed::Done;
    ensure!(answers == [done.clone(), done.clone(), done, Committed::Lost], "got {answers:?}");
    // What was released is taken again before the batch is repeated: the repetition must not release that delivery.
    let mut came = consumer.receive(4).await?;
    for _ in 0..2 {
        ensure!(consumer.consumer.commit(&batch).await? == answers, "the same number got another answer");
    }
    ensure!(sorted(&came) == [1, 10, 11, 12], "got {:?}", numbers(&came));
    came.push(held);
    consumer.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await?;
    nothing_but_a_marker(&broker, &consumer, &next).await
}

pub(super) async fn a_lower_number_is_refused(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("lower").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..3)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let [first, second, third] =
        consumer.receive(3).await?.try_into().map_err(|_| anyhow::anyhow!("not three"))?;
    let old = consumer.batch(vec![end(first, Disposition::Ack)]);
    consumer.consumer.commit(&old).await?;
    consumer.done(vec![end(second, Disposition::Ack)]).await?;
    let late = Batch { commits: vec![commit(Ending::Unfenced, numbered(&queue, 10..11))], ..old };
    let refused = consumer.consumer.commit(&late).await;
    ensure!(matches!(refused, Err(Error::LeaseLost { .. })), "expected `LeaseLost`, got {refused:?}");
    match (consumer.resume().await, broker.capabilities().ownership) {
        (Resumed::Stands { gone, .. }, Ownership::Connection) if gone == [third.receipt] => return Ok(()),
        (Resumed::Stands { fresh, gone }, _) if fresh.is_empty() && gone.is_empty() => {}
        (resumed, _) => anyhow::bail!("a late batch changed something: {resumed:?}"),
    }
    consumer.done(vec![end(third, Disposition::Ack)]).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn each_commit_answers_for_itself(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("itself").await?;
    let (queue, next) = (queue("celery")?, queue("next")?);
    broker.publish_all(numbered(&queue, 0..3)).await?;
    let consumer = Consuming::start(&broker, &[&queue, &next]).await?;
    let held = consumer.receive(3).await?;
    // What could be published must not be when the rest of its commit is refused, where a server knows transactions.
    let possible = broker.capabilities().atomic_publish.then(|| to(&next, message(11)));
    let refused = possible.into_iter().chain([unroutable(12)]).collect();
    let follow_ups = [numbered(&next, 10..11), refused, numbered(&next, 13..14)];
    let settle = |delivery: &Delivery| Ending::Settle(delivery.clone().settle(Disposition::Ack));
    let commits =
        held.iter().zip(follow_ups).map(|(delivery, publish)| commit(settle(delivery), publish)).collect();
    let answers = consumer.commit(commits).await?;
    let [Committed::Done, Committed::Refused(refusal), Committed::Done] = answers.as_slice() else {
        anyhow::bail!("expected the second to be refused alone, got {answers:?}");
    };
    ensure!(refusal.part == Part::FollowUp && !refusal.why.is_empty(), "got {refusal:?}");
    let mut came = consumer.receive(2).await?;
    ensure!(sorted(&came) == [10, 13], "got {:?}", numbers(&came));
    // The refused one is still held: another outcome may end it.
    came.extend(held.into_iter().nth(1));
    consumer.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &next).await
}

pub(super) async fn a_lost_delivery_publishes_nothing(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("fence").await?;
    let queue = queue("celery")?;
    let (mine, others) =
        (Consuming::start(&broker, &[&queue]).await?, Consuming::start(&broker, &[&queue]).await?);
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let lost = mine.receive_one().await?;
    mine.end(vec![lost.clone()], &Disposition::Release).await?;
    // A server that sends ahead may hand it to the same consumer again: as another delivery.
    let (holder, held) = tokio::select! {
        held = others.receive(1) => (&others, held?),
        held = mine.receive(1) => (&mine, held?),
    };
    let receipt = lost.receipt;
    let late = vec![
        commit(Ending::Settle(lost.settle(Disposition::Ack)), numbered(&queue, 10..11)),
        commit(Ending::Holds(receipt), numbered(&queue, 11..12)),
        commit(Ending::Starting(receipt), numbered(&queue, 12..13)),
    ];
    let answers = mine.commit(late).await?;
    ensure!(answers == vec![Committed::Lost; 3], "got {answers:?}");
    holder.end(held, &Disposition::Ack).await?;
    mine.close().await?;
    nothing_but_a_marker(&broker, &others, &queue).await
}

pub(super) async fn held_deliveries_publish_and_stay(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("holds").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let held = consumer.receive_one().await?;
    for number in 10..13 {
        consumer
            .done(vec![commit(Ending::Holds(held.receipt), numbered(&queue, number..number + 1))])
            .await?;
    }
    let mut came = consumer.receive(3).await?;
    ensure!(numbers(&came) == [10, 11, 12], "got {:?}", numbers(&came));
    came.push(held);
    consumer.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn unfenced_commits_are_applied_once(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("unfenced").await?;
    let queue = queue("celery")?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let batch = consumer.batch(vec![commit(Ending::Unfenced, numbered(&queue, 0..2))]);
    for _ in 0..3 {
        let answers = consumer.consumer.commit(&batch).await?;
        ensure!(answers == [Committed::Done], "got {answers:?}");
    }
    let came = consumer.receive(2).await?;
    ensure!(numbers(&came) == [0, 1], "got {:?}", numbers(&came));
    consumer.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await
}
