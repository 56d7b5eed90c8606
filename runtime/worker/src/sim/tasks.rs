//! The tasks of the model world, and the messages that call them. A task is its name: what it does, what must become of it.

use std::time::Duration;

use bytes::Bytes;
use rwork_broker::{Publish, Route};
use rwork_plugin::{EffectiveOptions, ExceptionNames, MaxRetries, TaskOptions, WorkerDefaults};
use rwork_protocol::{Embed, Message, NewTask, QueueName, Signature, State, TaskId, TaskName, Timestamp};

/// One kind of message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) task: &'static str,
    /// How often it is sent, against the others.
    weight: u32,
    pub(super) expect: Expect,
}

/// What must have become of a message in the end, if nothing but its task decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// A record in this state.
    Success,
    Failure,
    Revoked,
    /// A dead letter, and a FAILURE for whoever waits.
    DeadAndFailure(&'static str),
    /// A dead letter.
    Dead(&'static str),
    /// It ran, and nothing is stored.
    Nothing,
    /// Either: acked before it ran, so a crash may leave it without an outcome.
    AtMostOnce,
}

impl Expect {
    pub(super) fn state(self) -> Option<State> {
        match self {
            Self::Success => Some(State::Success),
            Self::Failure | Self::DeadAndFailure(_) => Some(State::Failure),
            Self::Revoked => Some(State::Revoked),
            Self::Dead(_) | Self::Nothing | Self::AtMostOnce => None,
        }
    }
}

const fn kind(task: &'static str, weight: u32, expect: Expect) -> Kind {
    Kind { task, weight, expect }
}

pub(super) const KINDS: [Kind; 35] = [
    kind("ok", 20, Expect::Success),
    kind("slow", 8, Expect::Success),
    // Ends by nobody's wish.
    kind("deaf", 1, Expect::Success),
    kind("patient", 4, Expect::Success),
    kind("quiet", 3, Expect::Nothing),
    kind("early", 4, Expect::AtMostOnce),
    kind("early-chain", 2, Expect::AtMostOnce),
    kind("started", 3, Expect::Success),
    kind("progress", 3, Expect::Success),
    kind("submit", 3, Expect::Success),
    kind("chain", 4, Expect::Success),
    kind("chain-fails", 2, Expect::Failure),
    kind("errback", 2, Expect::Failure),
    kind("retry", 5, Expect::Success),
    kind("retry-out", 2, Expect::Failure),
    kind("autoretry", 3, Expect::Failure),
    kind("replace", 3, Expect::Success),
    kind("fail", 4, Expect::Failure),
    kind("ignore", 2, Expect::Nothing),
    kind("reject", 2, Expect::DeadAndFailure("rejected")),
    kind("requeue", 3, Expect::Success),
    kind("soft", 2, Expect::Failure),
    kind("hard", 2, Expect::Failure),
    kind("memory", 2, Expect::Failure),
    kind("too-large", 1, Expect::Failure),
    kind("trap", 2, Expect::Failure),
    kind("fault", 3, Expect::Success),
    kind("poison", 2, Expect::DeadAndFailure("too-many-deliveries")),
    kind("bad-json", 1, Expect::Failure),
    kind("unstorable", 1, Expect::Failure),
    kind("never-stored", 1, Expect::Dead("result-refused")),
    kind("expired", 2, Expect::Revoked),
    kind("later", 3, Expect::Success),
    // Its next step goes where nothing can be published.
    kind("chain-refused", 1, Expect::DeadAndFailure("follow-up-refused")),
    // Ends its worker, each time.
    kind("killer", 0, Expect::DeadAndFailure("too-many-deliveries")),
];

/// Messages that are no task's.
pub(super) const STRANGERS: [Kind; 3] = [
    kind("unknown", 1, Expect::DeadAndFailure("unknown-task")),
    kind("", 1, Expect::Dead("undecodable")),
    kind("", 1, Expect::Dead("invalid-header")),
];

/// What a task of this name must come to.
pub(super) fn expect(task: &str) -> Option<Expect> {
    KINDS.iter().chain(&STRANGERS).find(|kind| kind.task == task).map(|kind| kind.expect)
}

/// A message as a producer sends it.
pub(super) fn message(rng: &mut fastrand::Rng, number: usize, now: Timestamp) -> Publish {
    let stranger = rng.u32(0..20);
    let message = match stranger {
        0 => undecodable(),
        1 => without_id(),
        2 => build(rng, "unknown", number, now),
        _ => {
            let total: u32 = KINDS.iter().map(|kind| kind.weight).sum();
            let mut place = rng.u32(0..total);
            let kind = KINDS.iter().find(|kind| {
                let here = place < kind.weight;
                place = place.wrapping_sub(kind.weight);
                here
            });
            build(rng, kind.map_or("ok", |kind| kind.task), number, now)
        }
    };
    Publish { route: Route::queue(&queue()), message, not_before: None }
}

/// A message that kills every worker that runs it.
pub(super) fn killer(rng: &mut fastrand::Rng, now: Timestamp) -> Publish {
    Publish { route: Route::queue(&queue()), message: build(rng, "killer", 0, now), not_before: None }
}

fn build(rng: &mut fastrand::Rng, task: &'static str, number: usize, now: Timestamp) -> Message {
    let id = format!("{task}-{number}");
    let mut new = NewTask { id: Some(task_id(&id)), ..NewTask::new(name(task)) };
    match task {
        "chain" | "early-chain" => new.embed = Embed { chain: Some(rest_of_chain(&id)), ..Embed::default() },
        "chain-refused" => {
            let step =
                Signature::new(name("ok")).immutable().with_option("task_id", quoted(&format!("{id}-step2")));
            let step = step.with_option("queue", quoted(closed_queue().as_str())).encode();
            new.embed = Embed { chain: Some(rwork_protocol::json::array_of(&[step])), ..Embed::default() };
        }
        "chain-fails" => new.embed = Embed { chain: Some(rest_of_chain(&id)), ..Embed::default() },
        "errback" => {
            let errback = Signature::new(name("ok")).with_option("task_id", quoted(&format!("{id}-errback")));
            new.embed.errbacks = Some(rwork_protocol::json::array_of(&[errback.encode()]));
        }
        "expired" => new.expires = Some(Timestamp::from_micros(now.as_micros() - 1_000_000)),
        "later" => new.eta = Some(now.plus(Duration::from_millis(rng.u64(1..40_000)))),
        _ => {}
    }
    new.build(now).unwrap().encode()
}

/// Two steps, the last first.
pub(super) fn rest_of_chain(id: &str) -> Bytes {
    let step = |nth: u32| {
        let step = Signature::new(name("ok")).immutable();
        step.with_option("task_id", quoted(&format!("{id}-step{nth}"))).encode()
    };
    rwork_protocol::json::array_of(&[step(3), step(2)])
}

fn undecodable() -> Message {
    let mut message = NewTask::new(name("ok")).build(Timestamp::default()).unwrap().encode();
    message.body = Bytes::from_static(b"[[1, 2");
    message
}

fn without_id() -> Message {
    let mut message = NewTask::new(name("ok")).build(Timestamp::default()).unwrap().encode();
    message.headers = Bytes::from_static(br#"{"task": "ok"}"#);
    message
}

/// A task's options; none for a name that no plugin has.
pub(super) fn options(task: &str) -> Option<EffectiveOptions> {
    if !KINDS.iter().any(|kind| kind.task == task) {
        return None;
    }
    let mut options = TaskOptions::default().resolve(&WorkerDefaults::default());
    options.reject_on_worker_lost = false;
    match task {
        "early" | "early-chain" => options.acks_late = false,
        "quiet" => options.ignore_result = true,
        "started" => options.track_started = true,
        "retry" => options.max_retries = MaxRetries::Unlimited,
        "retry-out" => options.max_retries = MaxRetries::AtMost(1),
        "autoretry" => {
            options.autoretry_for = ExceptionNames(vec!["ValueError".to_owned()]);
            options.max_retries = MaxRetries::AtMost(2);
            options.default_retry_delay = Duration::from_millis(500);
        }
        "hard" => options.cleanup = true,
        _ => {}
    }
    Some(options)
}

pub(super) fn queue() -> QueueName {
    QueueName::new("celery").unwrap()
}

/// A queue into which nothing can be published.
pub(super) fn closed_queue() -> QueueName {
    QueueName::new("closed").unwrap()
}

pub(super) fn name(task: &str) -> TaskName {
    TaskName::new(task).unwrap()
}

pub(super) fn task_id(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

pub(super) fn quoted(text: &str) -> Bytes {
    rwork_protocol::json::string(text)
}
