//! One take: the call of its script and its answer.

use redis::Value;
use rwork_protocol::service::Error;

use crate::consumer::Shared;
use crate::delayed::DUE_MAX;
use crate::deliveries::Taken;
use crate::line::Line;
use crate::link::{Call, Script};
use crate::reply;
use crate::sources::Source;

static TAKE: Script = Script::new(concat!(
    include_str!("../scripts/session.lua"),
    include_str!("../scripts/due.lua"),
    include_str!("../scripts/take.lua")
));
const ACT: &str = "take messages";

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Indexes of queues, the first to be served first.
    pub(super) queues: Vec<usize>,
    /// Whether queues share the room, or the first is emptied first.
    pub(super) is_fair: bool,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What came.
#[derive(Debug)]
pub(super) struct Took {
    pub(super) messages: Vec<Taken>,
    /// For each queue that was asked what it has left; empty where the room was too small.
    pub(super) left: Vec<Left>,
}

/// What a queue has left after a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// Something that is due after so many milliseconds.
    DueMs(u64),
    /// One of its keys has a wrong type.
    Broken,
}

/// Takes; `None`: the consumer does not stand.
pub(super) async fn take(
    shared: &Shared,
    line: &Line,
    token: &str,
    wanted: &Wanted,
) -> Result<Option<Took>, Error> {
    let call = call(shared, token, wanted);
    let answer = shared.inner.commands.watched(&line.wire, line.wire.script(ACT, &call)).await?;
    if answer == Value::Nil {
        return Ok(None);
    }
    read(answer, wanted).map(Some).ok_or_else(|| reply::odd(&line.wire.url, ACT, "a list of messages"))
}

fn call(shared: &Shared, token: &str, wanted: &Wanted) -> Call<'static> {
    let (own, sources) = (&shared.inner.broker.keys, &shared.sources);
    let queues: Vec<&Source> = wanted.queues.iter().filter_map(|queue| sources.queues.get(*queue)).collect();
    let (hash, held) = (own.consumer(&shared.id), own.held(&shared.id));
    let mut keys = vec![&own.consumers, &hash, &held, &own.unacked, &own.unacked_index];
    for source in &queues {
        keys.extend([&source.delayed, &source.parked].into_iter().chain(&source.lists));
    }
    let mut call = TAKE.call(&keys);
    call.arg(&shared.id).arg(token).arg(shared.last_taking());
    call.arg(wanted.messages).arg(wanted.bytes).arg(DUE_MAX).arg(u8::from(wanted.is_fair));
    call.arg(sources.steps.len());
    for step in &sources.steps {
        call.arg(*step);
    }
    for source in queues {
        call.arg(source.back.as_slice());
    }
    call
}

fn read(answer: Value, wanted: &Wanted) -> Option<Took> {
    let mut parts = reply::list(answer)?.into_iter();
    let mut taking = reply::count(&parts.next()?)?;
    let left = reply::list(parts.next()?)?.iter().map(left).collect::<Option<_>>()?;
    let mut messages = Vec::with_capacity(wanted.messages.min(1024));
    for group in parts {
        let mut group = reply::list(group)?.into_iter();
        let queue = *wanted.queues.get(usize::try_from(reply::int(&group.next()?)?).ok()?)?;
        let step = u8::try_from(reply::int(&group.next()?)?).ok()?;
        for envelope in group {
            taking += 1;
            messages.push(Taken { taking, queue, step, envelope: reply::bytes(envelope)? });
        }
    }
    Some(Took { messages, left })
}

fn left(value: &Value) -> Option<Left> {
    Some(match reply::int(value)? {
        -1 => Left::Nothing,
        -2 => Left::Broken,
        wait => Left::DueMs(wait.unsigned_abs()),
    })
}
