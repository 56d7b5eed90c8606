//! Records that ride in commits, where results are kept where messages are.

use std::time::Duration;

use rwork_backend::Store;
use rwork_protocol::{Record, State, TaskId};

use super::*;

/// A connection to the broker and to its results; `None` where they are elsewhere.
async fn connect(
    site: &Site<'_>,
    name: &'static str,
) -> Result<Option<(Arc<dyn Broker>, Arc<dyn ResultBackend>)>> {
    let broker = site.connect(name).await?;
    if !broker.capabilities().commits_records {
        return Ok(None);
    }
    let results = site.ground.results(Place::new(name)).await?;
    let results =
        results.ok_or_else(|| anyhow::anyhow!("commits carry records, and nobody can read them"))?;
    Ok(Some((broker, results)))
}

fn store(id: &TaskId, status: State, result: &'static str) -> Store {
    let record = Record::new(id.clone(), status, result);
    Store { record, expires: Some(Duration::from_secs(3600)), reply_to: None, correlation_id: None }
}

/// State and result of each.
async fn read(results: &dyn ResultBackend, ids: &[TaskId]) -> Result<Vec<Option<(State, Bytes)>>> {
    let records = results.get(ids).await?;
    Ok(records.into_iter().map(|record| record.map(|record| (record.status, record.result))).collect())
}

pub(super) async fn records_are_stored_with_the_commit(site: &Site<'_>) -> Result<()> {
    let Some((broker, results)) = connect(site, "records").await? else { return Ok(()) };
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..2)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let [good, refused] = consumer.receive(2).await?.try_into().map_err(|_| anyhow::anyhow!("not two"))?;
    let ids = [TaskId::generate(), TaskId::generate(), TaskId::generate()];
    let [one, other, third] = &ids;
    let started = Commit {
        records: vec![store(one, State::Started, "null")],
        ..commit(Ending::Holds(good.receipt), Vec::new())
    };
    consumer.done(vec![started]).await?;
    ensure!(read(&*results, &ids).await? == [Some((State::Started, "null".into())), None, None]);
    let both = Commit {
        records: vec![store(one, State::Success, "1"), store(other, State::Failure, "{}")],
        publish: numbered(&queue, 10..11),
        ending: Ending::Settle(good.settle(Disposition::Ack)),
    };
    let neither = Commit {
        records: vec![store(third, State::Success, "3")],
        publish: vec![unroutable(11)],
        ending: Ending::Holds(refused.receipt),
    };
    let answers = consumer.commit(vec![both, neither]).await?;
    ensure!(matches!(answers.as_slice(), [Committed::Done, Committed::Refused(_)]), "got {answers:?}");
    let success = Some((State::Success, "1".into()));
    let expected = [success.clone(), Some((State::Failure, "{}".into())), None];
    let found = read(&*results, &ids).await?;
    ensure!(found == expected, "expected {expected:?}, got {found:?}");
    // A SUCCESS is final, and what stands in its way is no reason to refuse the rest.
    let late = Commit {
        records: vec![store(one, State::Failure, "{}"), store(third, State::Success, "3")],
        publish: Vec::new(),
        ending: Ending::Settle(refused.settle(Disposition::Ack)),
    };
    consumer.done(vec![late]).await?;
    ensure!(
        read(&*results, &[one.clone(), third.clone()]).await?
            == [success, Some((State::Success, "3".into()))]
    );
    consumer.end(consumer.receive(1).await?, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn a_lost_delivery_records_only_a_success(site: &Site<'_>) -> Result<()> {
    let Some((broker, results)) = connect(site, "records-fence").await? else { return Ok(()) };
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let lost = consumer.receive_one().await?;
    consumer.end(vec![lost.clone()], &Disposition::Ack).await?;
    let ids = [TaskId::generate(), TaskId::generate()];
    let [one, other] = &ids;
    let late = Commit {
        records: vec![store(one, State::Failure, "{}"), store(other, State::Success, "1")],
        publish: numbered(&queue, 10..11),
        ending: Ending::Settle(lost.settle(Disposition::Ack)),
    };
    let answers = consumer.commit(vec![late]).await?;
    ensure!(answers == [Committed::Lost], "got {answers:?}");
    let found = read(&*results, &ids).await?;
    ensure!(found == [None, Some((State::Success, "1".into()))], "got {found:?}");
    nothing_but_a_marker(&broker, &consumer, &queue).await
}
