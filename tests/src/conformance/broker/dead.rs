//! Dead letters.

use super::*;
use rwork_broker::{DeadLetterId, DeadLetterQuery};

/// Publishes messages and gives each up.
async fn bury(broker: &Arc<dyn Broker>, queue: &QueueName, numbers: std::ops::Range<usize>) -> Result<()> {
    let count = numbers.len();
    broker.publish_all(numbered(queue, numbers)).await?;
    let consumer = Consuming::start(broker, &[queue]).await?;
    let came = consumer.receive(count).await?;
    consumer.end(came, &Disposition::DeadLetter(reason("given up"))).await?;
    consumer.close().await
}

pub(super) async fn dead_letters_are_kept_whole(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("dead").await?;
    let queue = queue("celery")?;
    let mut bad = message(3);
    bad.body = Bytes::from_static(b"\x00\xff not what it says \x80");
    bad.properties.priority = Some(4);
    broker.publish_all(vec![to(&queue, bad)]).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    consumer.end(consumer.receive(1).await?, &Disposition::Requeue).await?;
    let came = consumer.receive(1).await?;
    let received = came.first().map(|delivery| delivery.message.clone());
    let why = reason("expected JSON, got `\u{0}`");
    consumer.end(came, &Disposition::DeadLetter(why.clone())).await?;
    let letters = broker.dead_letters(DeadLetterQuery::default()).await?;
    let [letter] = letters.as_slice() else { anyhow::bail!("expected one, got {letters:?}") };
    ensure!(Some(&letter.message) == received.as_ref(), "the message changed: {letter:?}");
    ensure!(letter.reason == why, "the reason changed: {letter:?}");
    ensure!(letter.queue == queue);
    if broker.capabilities().counts_deliveries {
        ensure!(letter.delivery_count == 2, "got {}", letter.delivery_count);
    }
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn dead_letters_are_paged_and_picked(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("dead-pages").await?;
    let (one, other) = (queue("one")?, queue("other")?);
    bury(&broker, &one, 0..5).await?;
    bury(&broker, &other, 5..7).await?;
    bury(&broker, &one, 7..8).await?;
    let mut all = Vec::new();
    loop {
        let after = all.last().cloned();
        let page =
            broker.dead_letters(DeadLetterQuery { limit: Some(3), after, ..Default::default() }).await?;
        ensure!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        all.extend(page.into_iter().map(|letter| letter.id));
    }
    ensure!(all.len() == 8, "the pages hold {}", all.len());
    let of = |queue: &QueueName| DeadLetterQuery { queue: Some(queue.clone()), ..Default::default() };
    ensure!(broker.dead_letters(of(&other)).await?.len() == 2);

    let picked: Vec<DeadLetterId> = all.iter().step_by(4).cloned().collect();
    let nonsense = DeadLetterId("no such letter".to_owned());
    let ids = picked.iter().cloned().chain([nonsense]).collect();
    let query = DeadLetterQuery { ids, ..Default::default() };
    ensure!(broker.dead_letters(query.clone()).await?.len() == picked.len());
    ensure!(broker.purge_dead_letters(query).await? == picked.len() as u64);
    let left = broker.dead_letters(DeadLetterQuery::default()).await?;
    ensure!(left.iter().all(|letter| !picked.contains(&letter.id)) && left.len() == 6);
    ensure!(broker.purge_dead_letters(DeadLetterQuery { limit: Some(1), ..of(&one) }).await? == 1);
    ensure!(broker.purge_dead_letters(DeadLetterQuery::default()).await? == 5);
    ensure!(broker.dead_letters(DeadLetterQuery::default()).await?.is_empty());
    Ok(())
}

pub(super) async fn retried_dead_letters_are_new(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("dead-retry").await?;
    let (one, other) = (queue("one")?, queue("other")?);
    bury(&broker, &one, 0..3).await?;
    bury(&broker, &other, 3..4).await?;
    let consumer = Consuming::start(&broker, &[&one, &other]).await?;
    let query = DeadLetterQuery { queue: Some(one.clone()), limit: Some(2), ..Default::default() };
    ensure!(broker.retry_dead_letters(query).await? == 2);
    let came = consumer.receive(2).await?;
    ensure!(numbers(&came) == [0, 1], "got {:?}", numbers(&came));
    for (delivery, sent) in came.iter().zip([message(0), message(1)]) {
        ensure!(delivery.queue == one && delivery.delivery_count == 1, "not as new: {delivery:?}");
        ensure!(delivery.message.body == sent.body && delivery.message.properties == sent.properties);
    }
    ensure!(broker.retry_dead_letters(DeadLetterQuery::default()).await? == 2);
    ensure!(broker.retry_dead_letters(DeadLetterQuery::default()).await? == 0);
    let rest = sorted(&consumer.receive(2).await?);
    ensure!(rest == [2, 3], "got {rest:?}");
    Ok(())
}
