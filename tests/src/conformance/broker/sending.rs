//! Publishing and receiving.

use super::*;
use std::time::Duration;

use rwork_broker::{Error, PriorityOrder};

pub(super) async fn messages_come_in_order_and_whole(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("order").await?;
    let queue = queue("celery")?;
    let headers = "{\"id\":\"0\",\"ünï\":\"\u{1F980}\\u0000\",\"deep\":[{\"a\":[1.5,null]}]}";
    let weird = Message {
        headers: Bytes::from_static(headers.as_bytes()),
        properties: Properties {
            correlation_id: Some("0".to_owned()),
            reply_to: Some("b9f7c1f0-aaaa".to_owned()),
            priority: Some(0),
            delivery_mode: Some(1),
            expiration: Some("3600000".to_owned()),
        },
        content_type: "application/x-python-serialize".to_owned(),
        content_encoding: "binary".to_owned(),
        body: (0..=255_u8).cycle().take(1000).collect(),
    };
    let empty = Message { body: Bytes::new(), ..message(1) };
    broker.publish_all(vec![to(&queue, weird.clone()), to(&queue, empty.clone())]).await?;
    broker.publish_all(numbered(&queue, 2..300)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let came = consumer.receive(300).await?;
    ensure!(numbers(&came) == (0..300).collect::<Vec<_>>(), "out of order: {:?}", numbers(&came));
    for (delivery, sent) in came.iter().zip([&weird, &empty, &message(2)]) {
        let got = &delivery.message;
        ensure!(got.body == sent.body, "body differs: {got:?}");
        ensure!(got.properties == sent.properties, "properties differ: {got:?}");
        ensure!((&got.content_type, &got.content_encoding) == (&sent.content_type, &sent.content_encoding));
        // A broker with a header table of its own may write the JSON anew.
        let json = serde_json::from_slice::<serde_json::Value>;
        ensure!(json(&got.headers)? == json(&sent.headers)?, "headers differ: {got:?}");
        ensure!(!delivery.redelivered && delivery.delivery_count == 1 && delivery.queue == queue);
    }
    consumer.end(came, &Disposition::Ack).await
}

pub(super) async fn priorities_come_in_their_order(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("priorities").await?;
    let queue = queue("celery")?;
    let with = |number, priority| {
        let mut message = message(number);
        message.properties.priority = Some(priority);
        to(&queue, message)
    };
    broker.publish_all(vec![with(0, 5), with(1, 9), with(2, 0), with(3, 5), with(4, 0), with(5, 9)]).await?;
    let expected = match broker.capabilities().priorities {
        Some(PriorityOrder::LowFirst) => [2, 4, 0, 3, 1, 5],
        Some(PriorityOrder::HighFirst) => [1, 5, 0, 3, 2, 4],
        None => [0, 1, 2, 3, 4, 5],
    };
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let came = consumer.receive(6).await?;
    ensure!(numbers(&came) == expected, "expected {expected:?}, got {:?}", numbers(&came));
    Ok(())
}

pub(super) async fn several_queues_are_all_served(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("several").await?;
    let (full, sparse, foreign) = (queue("full")?, queue("sparse")?, queue("foreign")?);
    let consumer = Consuming::start(&broker, &[&full, &sparse]).await?;
    broker.publish_all(numbered(&foreign, 500..501)).await?;
    broker.publish_all(numbered(&full, 0..100)).await?;
    broker.publish_all(numbered(&sparse, 100..101)).await?;
    let mut came = Vec::new();
    while !numbers(&came).contains(&100) {
        ensure!(came.len() < 100, "a full queue starved the other");
        came.extend(consumer.receive(5).await?);
    }
    ensure!(
        came.iter().all(|delivery| delivery.queue != foreign),
        "a message of a queue that was not asked for"
    );
    ensure!(came.iter().any(|delivery| delivery.queue == sparse));
    Ok(())
}

pub(super) async fn large_messages_pass_and_larger_are_refused(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("large").await?;
    let queue = queue("celery")?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let limit = broker.capabilities().message_bytes_max;
    let sized = |size: usize| {
        let small = message(7);
        let body = (0..=250_u8).cycle().take(size - small.headers.len()).collect();
        Message { body, ..small }
    };
    // Servers without a limit worth a test are asked for a size that a worker would refuse anyway.
    let largest = sized(limit.min(20 << 20));
    broker.publish_all(vec![to(&queue, largest.clone())]).await?;
    let came = consumer.receive(1).await?;
    ensure!(came.iter().all(|delivery| delivery.message.body == largest.body), "a large body changed");
    consumer.end(came, &Disposition::Ack).await?;
    if limit < 1 << 30 {
        let outcomes = broker.publish(vec![to(&queue, message(8)), to(&queue, sized(limit + 1))]).await?;
        let expected = matches!(outcomes.as_slice(), [Ok(()), Err(Error::TooLarge { .. })]);
        ensure!(expected, "expected the second to be refused alone, got {outcomes:?}");
        let came = consumer.receive(1).await?;
        ensure!(numbers(&came) == [8], "got {:?}", numbers(&came));
        consumer.end(came, &Disposition::Ack).await?;
    }
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn one_refused_message_stops_no_other(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("outcomes").await?;
    let queue = queue("celery")?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let batch = vec![to(&queue, message(0)), unroutable(1), to(&queue, message(2)), unroutable(3)];
    let outcomes = broker.publish(batch).await?;
    let [Ok(()), Err(refusal), Ok(()), Err(_)] = outcomes.as_slice() else {
        anyhow::bail!("expected every second one to be refused, got {outcomes:?}");
    };
    if !broker.capabilities().exchanges {
        ensure!(matches!(refusal, Error::Unsupported { .. }), "expected `Unsupported`, got {refusal:?}");
        let route = Route { exchange: String::new(), routing_key: String::new() };
        let nowhere = Publish { route, message: message(4), not_before: None };
        let outcomes = broker.publish(vec![nowhere]).await?;
        ensure!(matches!(outcomes.as_slice(), [Err(_)]), "a message to no queue was accepted");
    }
    let came = consumer.receive(2).await?;
    ensure!(numbers(&came) == [0, 2], "got {:?}", numbers(&came));
    consumer.end(came, &Disposition::Ack).await?;
    ensure!(broker.publish(Vec::new()).await?.is_empty());
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn queues_are_counted_and_purged(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("counted").await?;
    let (celery, idle) = (queue("celery")?, queue("idle")?);
    let consumer = Consuming::start(&broker, &[&celery, &idle]).await?;
    broker.publish_all(numbered(&celery, 0..5)).await?;
    let held = consumer.receive(2).await?;
    let dead = consumer.receive(1).await?;
    consumer.end(dead, &Disposition::DeadLetter(reason("no"))).await?;
    let mut delayed = 0;
    if broker.capabilities().delayed {
        let mut late = to(&celery, message(5));
        let now = Timestamp::from_system(std::time::SystemTime::now());
        late.not_before = Some(now.plus(Duration::from_secs(3600)));
        broker.publish_all(vec![late]).await?;
        delayed = 1;
    }
    let infos = broker.queues().await?;
    let counts = |name: &QueueName| {
        let info = infos.iter().find(|info| info.name == *name)?;
        Some((info.ready, info.unsettled, info.delayed, info.dead))
    };
    let found = counts(&celery);
    ensure!(found == Some((2, 2, delayed, 1)), "expected ready, unsettled, delayed, dead, got {found:?}");
    let found = counts(&idle);
    ensure!(found == Some((0, 0, 0, 0)), "an empty queue is a queue, got {found:?}");

    let purged = broker.purge(&celery).await?;
    ensure!(purged == 2 + delayed, "purged {purged}");
    consumer.end(held, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &celery).await
}

pub(super) async fn a_waiting_consumer_is_woken(site: &Site<'_>) -> Result<()> {
    // Two connections, as a worker and a producer have.
    let (broker, producer) = (site.connect("woken").await?, site.connect("woken").await?);
    let queue = queue("celery")?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    for number in 0..20 {
        let waiting = consumer.receive(1);
        let sending = async { Ok(producer.publish_all(numbered(&queue, number..number + 1)).await?) };
        let (came, ()) = tokio::try_join!(waiting, sending)?;
        ensure!(numbers(&came) == [number]);
        consumer.end(came, &Disposition::Ack).await?;
    }
    Ok(())
}
