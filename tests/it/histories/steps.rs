//! Steps of a history: each makes one call on both sides and compares the answers.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use rwork_backend::Store as ToStore;
use rwork_broker::{
    Batch, Commit, Committed, Consume, DeadLetterQuery, Disposition, Ending, Error, Publish, Reason, Receipt,
    Resumed, Room, Route,
};
use rwork_model::{Call, Close, CommitBatch, Look, Open, Post, Reap, Renew, Resume};
use rwork_protocol::{NewTask, Record, State, TaskId, TaskName};

use super::history::{Both, History, now, queues};

/// Consumers at once.
const CONSUMERS_MAX: usize = 3;
/// Deliveries that one consumer may hold.
const UNSETTLED_MAX: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);

/// One step, drawn by the history's chance.
pub(super) async fn step(history: &mut History) -> anyhow::Result<()> {
    let living = history.consumers.len();
    match history.rng.u32(0..100) {
        0..15 => publish(history).await,
        15..25 if living < CONSUMERS_MAX => consume(history).await,
        _ if living == 0 => consume(history).await,
        25..50 => receive(history).await,
        50..76 => commit(history).await,
        76..82 => repeat(history).await,
        82..85 => lower(history).await,
        85..89 => renew(history).await,
        89..92 => resume(history).await,
        92..95 => close(history).await,
        95..96 => purge(history).await,
        96..98 => retry_dead(history).await,
        _ if !history.has_died && living > 1 => die(history).await,
        _ => receive(history).await,
    }
}

fn some(history: &mut History) -> usize {
    let living = history.consumers.len();
    history.rng.usize(0..living)
}

fn apply<C: Call>(history: &mut History, call: &C) -> Result<C::Answer, Error> {
    history.model.pass_time(now());
    let answer = call.apply(&mut history.model, now());
    for event in history.model.take_events() {
        assert!(!matches!(event, rwork_model::Event::Broken(_)), "the history itself is wrong: {event:?}");
    }
    answer
}

fn new_message(history: &mut History) -> Publish {
    let number = history.number();
    let name = TaskName::new("t").unwrap();
    let new = NewTask {
        id: Some(TaskId::new(format!("task-{number}")).unwrap()),
        args: Bytes::from(format!("[{number}]")),
        ..NewTask::new(name)
    };
    let queue = history.rng.choice(queues()).unwrap();
    let not_before = match history.rng.u32(0..12) {
        0 => Some(now().plus(HOUR)),
        // Its place among the others is nobody's promise.
        1 => Some(rwork_protocol::Timestamp::from_millis(1_000)),
        _ => None,
    };
    if not_before.is_some() {
        history.delayed.insert(number);
    }
    let message = new.build(now()).unwrap().encode();
    Publish { route: Route::queue(&queue), message, not_before }
}

async fn publish(history: &mut History) -> anyhow::Result<()> {
    let count = history.rng.usize(1..5);
    let mut batch: Vec<_> = (0..count).map(|_| new_message(history)).collect();
    if history.rng.u32(0..8) == 0 {
        let mut lost = new_message(history);
        lost.route.exchange = "nowhere".to_owned();
        batch.push(lost);
    }
    history.tell(format!("publish {:?}", batch.iter().map(short).collect::<Vec<_>>()));
    let ours = apply(history, &Post(batch.clone()))?;
    let theirs = history.real.broker.publish(batch).await?;
    let (ours, theirs): (Vec<_>, Vec<_>) =
        (ours.iter().map(Result::is_ok).collect(), theirs.iter().map(Result::is_ok).collect());
    ensure!(ours == theirs, "accepted {theirs:?}, expected {ours:?}");
    Ok(())
}

fn short(publish: &Publish) -> String {
    let held_back = if publish.not_before.is_some() { ", held back" } else { "" };
    format!("{} to {}{held_back}", number_of(&publish.message.body), publish.route.routing_key)
}

async fn consume(history: &mut History) -> anyhow::Result<()> {
    let mut of = queues().to_vec();
    if history.rng.bool() {
        of.truncate(1);
    }
    let options = Consume { queues: of, name: "history".to_owned(), unsettled_max: UNSETTLED_MAX };
    history.tell(format!("consume {:?}", options.queues));
    let mut line = history.line(0);
    let open = Open { consumer: line.consumer, token: line.token, options: options.clone() };
    line.incarnation = apply(history, &open)?;
    let real = history.real.broker.consume(options).await?;
    history.consumers.push(Both { line, real, number: 0, last: None, settled: Vec::new() });
    Ok(())
}

async fn receive(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    let most = history.rng.usize(1..5).min(UNSETTLED_MAX - history.held(nth).len());
    history.model.pass_time(now());
    let ready = history.model.ready_for(history.consumers[nth].line.consumer);
    if most == 0 || ready == 0 {
        return Ok(());
    }
    let room = Room { messages: most, bytes: usize::MAX };
    history.tell(format!("receive {most} of {ready} by {nth}"));
    let both = &history.consumers[nth];
    let line = both.line;
    let deliveries = history.real.receive(both.real.as_ref(), room).await?;
    ensure!(deliveries.len() <= most, "{} came, asked for {most}", deliveries.len());
    for delivery in &deliveries {
        let number = number_of(&delivery.message.body);
        let told = (number, delivery.receipt, delivery.redelivered, delivery.delivery_count);
        history.tell(format!("  {told:?}"));
    }
    for delivery in &deliveries {
        let is_first = history.seen.insert(delivery.message.body.to_vec());
        let number = number_of(&delivery.message.body);
        if is_first
            && delivery.delivery_count == 1
            && !delivery.redelivered
            && !history.delayed.contains(&number)
        {
            let last = history.last_fresh.insert(delivery.queue.clone(), number);
            ensure!(last.is_none_or(|last| last < number), "message {number} came after {last:?}");
        }
    }
    let wrong = apply(history, &Look { line, deliveries })?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The only argument of a message of ours.
fn number_of(body: &[u8]) -> u64 {
    let digits =
        body.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn record(history: &mut History) -> ToStore {
    let number = history.rng.u32(0..6);
    let id = TaskId::new(format!("result-{number}")).unwrap();
    history.tasks.insert(id.clone());
    let state = history.rng.choice([State::Success, State::Failure, State::Retry, State::Started]).unwrap();
    let result = match state {
        State::Success => Bytes::from(history.number().to_string()),
        _ => Bytes::from_static(b"null"),
    };
    let record = Record { children: Some(Bytes::from_static(b"[]")), ..Record::new(id, state, result) };
    ToStore { record, expires: Some(HOUR), reply_to: None, correlation_id: None }
}

fn reason() -> Reason {
    let (kind, detail) = ("rejected".to_owned(), "as the history wants it".to_owned());
    Reason { kind, detail, worker: "history".to_owned(), at: rwork_protocol::Timestamp::from_millis(1_000) }
}

fn disposition(history: &mut History) -> Disposition {
    match history.rng.u32(0..12) {
        0..5 => Disposition::Ack,
        5..7 => Disposition::Requeue,
        7 => Disposition::Release,
        8 => Disposition::Interrupt,
        9 => Disposition::Delay(now().plus(HOUR)),
        10 => Disposition::Delay(rwork_protocol::Timestamp::from_millis(1_000)),
        _ => Disposition::DeadLetter(reason()),
    }
}

fn new_commit(history: &mut History, nth: usize, receipts: &mut Vec<Receipt>) -> Commit {
    let kind = history.rng.u32(0..10);
    let held = receipts.pop().filter(|_| kind < 8);
    let settled = history.consumers[nth].settled.clone();
    let foreign = history.rng.choice(settled).filter(|_| kind == 8);
    let ending = match held.or(foreign) {
        None => Ending::Unfenced,
        Some(receipt) if kind < 2 => Ending::Starting(receipt),
        Some(receipt) if kind < 3 => Ending::Holds(receipt),
        Some(receipt) => {
            let how = disposition(history);
            let delivery = history.model.delivery_of(history.consumers[nth].line.consumer, receipt);
            match delivery {
                Some(delivery) => Ending::Settle(delivery.settle(how)),
                None => Ending::Holds(receipt),
            }
        }
    };
    let mut publish: Vec<_> = (0..history.rng.usize(0..3)).map(|_| new_message(history)).collect();
    if history.rng.u32(0..15) == 0 {
        let mut lost = new_message(history);
        lost.route.exchange = "nowhere".to_owned();
        publish.push(lost);
    }
    let records = match history.model.rules.commits_records {
        true => (0..history.rng.usize(0..3)).map(|_| record(history)).collect(),
        false => Vec::new(),
    };
    Commit { records, publish, ending }
}

async fn commit(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    let mut receipts = history.held(nth);
    history.rng.shuffle(&mut receipts);
    let count = history.rng.usize(1..5);
    let commits: Vec<_> = (0..count).map(|_| new_commit(history, nth, &mut receipts)).collect();
    history.consumers[nth].number += 1;
    let batch = Batch { number: history.consumers[nth].number, commits };
    history.tell(format!("commit by {nth}, number {}", batch.number));
    for commit in &batch.commits {
        let records: Vec<_> =
            commit.records.iter().map(|store| (&store.record.task_id, &store.record.status)).collect();
        let publish: Vec<_> = commit.publish.iter().map(short).collect();
        history.tell(format!("  {:?}, {records:?}, {publish:?}", ending(&commit.ending)));
    }
    let ours = apply(history, &CommitBatch { line: history.consumers[nth].line, batch: batch.clone() })?;
    let both = &mut history.consumers[nth];
    let theirs = both.real.commit(&batch).await?;
    for (commit, answer) in batch.commits.iter().zip(&ours) {
        if let (Ending::Settle(settlement), Committed::Done) = (&commit.ending, answer) {
            both.settled.push(settlement.receipt);
        }
    }
    ensure!(same(&ours, &theirs), "answered {theirs:?}, expected {ours:?}");
    both.last = Some((batch, theirs));
    Ok(())
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Settle(settlement) => format!("{:?} {:?}", settlement.receipt, settlement.disposition),
        other => format!("{other:?}"),
    }
}

/// The same answers, whatever the words of a refusal. What is not held and can't be done may be answered either way.
fn same(ours: &[Committed], theirs: &[Committed]) -> bool {
    let is_same = |(ours, theirs): (&Committed, &Committed)| match (ours, theirs) {
        (Committed::Refused(ours), Committed::Refused(theirs)) => ours.part == theirs.part,
        (Committed::Lost, Committed::Refused(_)) => true,
        (ours, theirs) => ours == theirs,
    };
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(is_same)
}

async fn repeat(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    let Some((batch, answers)) = history.consumers[nth].last.clone() else { return Ok(()) };
    history.tell(format!("repeat by {nth}, number {}", batch.number));
    let again = history.consumers[nth].real.commit(&batch).await?;
    ensure!(again == answers, "answered {again:?}, at first {answers:?}");
    Ok(())
}

async fn lower(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    let number = history.consumers[nth].number;
    if number < 2 {
        return Ok(());
    }
    let publish = vec![new_message(history)];
    let commits = vec![Commit { records: Vec::new(), publish, ending: Ending::Unfenced }];
    history.tell(format!("commit by {nth}, lower number {}", number - 1));
    match history.consumers[nth].real.commit(&Batch { number: number - 1, commits }).await {
        Err(Error::LeaseLost { .. }) => resume_it(history, nth).await,
        other => bail!("answered {other:?}, expected that it is stale"),
    }
}

async fn renew(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    history.tell(format!("renew {nth}"));
    apply(history, &Renew { line: history.consumers[nth].line })?;
    ensure!(history.consumers[nth].real.renew().await?, "a consumer that stands must be resumed");
    Ok(())
}

async fn resume(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    resume_it(history, nth).await
}

async fn resume_it(history: &mut History, nth: usize) -> anyhow::Result<()> {
    history.tell(format!("resume {nth}"));
    let line = history.consumers[nth].line;
    let known = history.held(nth).into_iter().collect();
    let ours = apply(history, &Resume { line, accepted: vec![line.token], known, first: u64::MAX })?;
    let theirs = history.consumers[nth].real.resume().await?;
    ensure!(ours == theirs, "resumed as {theirs:?}, expected {ours:?}");
    ensure!(matches!(ours, Resumed::Stands { .. }), "the history itself is wrong: {ours:?}");
    Ok(())
}

async fn close(history: &mut History) -> anyhow::Result<()> {
    let nth = some(history);
    let started: Vec<_> = history.held(nth).into_iter().filter(|_| history.rng.bool()).collect();
    history.tell(format!("close {nth}, started {started:?}"));
    let both = history.consumers.remove(nth);
    apply(history, &Close { line: both.line, started: started.clone() })?;
    both.real.close(&started).await?;
    both.real.close(&started).await.context("closing twice is harmless")
}

/// A consumer is heard of no more; others find it dead.
async fn die(history: &mut History) -> anyhow::Result<()> {
    history.has_died = true;
    let nth = some(history);
    history.tell(format!("death of {nth}"));
    let both = history.consumers.remove(nth);
    let (consumer, counter) = (both.line.consumer, history.model.counter(both.line.consumer));
    drop(both);
    apply(history, &Reap { consumer, counter })?;
    let others: Vec<_> = history.consumers.iter().map(|both| both.real.as_ref()).collect();
    for name in queues() {
        let expected = history.model.queue(&name);
        history.real.until_queue(&expected, &others, history.renewal_interval()).await?;
    }
    Ok(())
}

async fn purge(history: &mut History) -> anyhow::Result<()> {
    let queue = history.rng.choice(queues()).unwrap();
    history.tell(format!("purge {queue}"));
    history.model.pass_time(now());
    let (ours, theirs) = (history.model.purge(&queue), history.real.broker.purge(&queue).await?);
    ensure!(ours == theirs, "purged {theirs}, expected {ours}");
    Ok(())
}

async fn retry_dead(history: &mut History) -> anyhow::Result<()> {
    let queue = history.rng.choice(queues()).unwrap();
    history.tell(format!("retry dead letters of {queue}"));
    let query = DeadLetterQuery { queue: Some(queue.clone()), ..DeadLetterQuery::default() };
    let (ours, theirs) =
        (history.model.retry_dead_letters(&queue), history.real.broker.retry_dead_letters(query).await?);
    ensure!(ours == theirs, "put back {theirs}, expected {ours}");
    Ok(())
}

/// Everything that can be seen from outside.
pub(super) async fn compare(history: &mut History) -> anyhow::Result<()> {
    for name in queues() {
        history.model.pass_time(now());
        let ours = history.model.queue(&name);
        let theirs = history.real.queue(&name).await?;
        ensure!(ours == theirs, "found {theirs:?}, expected {ours:?}");
        let query = DeadLetterQuery { queue: Some(name.clone()), ..DeadLetterQuery::default() };
        let body = |letter: &rwork_broker::DeadLetter| (letter.message.body.clone(), letter.reason.clone());
        let mut ours: Vec<_> = history.model.dead_letters(&name).iter().map(body).collect();
        let mut theirs: Vec<_> = history.real.broker.dead_letters(query).await?.iter().map(body).collect();
        ours.sort_by(|one, other| one.0.cmp(&other.0));
        theirs.sort_by(|one, other| one.0.cmp(&other.0));
        ensure!(ours == theirs, "dead letters {theirs:?}, expected {ours:?}");
    }
    let ids: Vec<_> = history.tasks.iter().cloned().collect();
    let theirs = history.real.backend.get(&ids).await?;
    for (id, theirs) in ids.iter().zip(theirs) {
        let told = |record: &Record| (record.status.clone(), record.result.clone());
        let ours = history.model.record(id).map(told);
        ensure!(ours == theirs.as_ref().map(told), "the record of {id} is {theirs:?}, expected {ours:?}");
    }
    Ok(())
}
