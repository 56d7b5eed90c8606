//! What follows an outcome (`celery-wire.md` §5.3, §5.4, §5.9).

use bytes::Bytes;
use rwork_protocol::json::{self, Kind};
use rwork_protocol::{Signature, TaskId, TaskMessage};

use crate::apply::{Given, Sender, Sent};
use crate::compose::{Shape, add_links, check_steps, shape};
use crate::{Context, Error, FailedStep, Next, Parent};

/// After success: the callbacks, then the next step of the chain, each with the result before its own arguments.
///
/// `result` is one encoded value. Costs nothing when nothing follows.
///
/// # Errors
/// When a follow-up can't be sent; the task is a failure then, and nothing is to be published.
pub fn on_success(message: &TaskMessage, result: &Bytes, context: &mut Context<'_>) -> Result<Next, Error> {
    if message.embed.is_empty() {
        return Ok(Next::default());
    }
    if message.embed.chord.is_some() {
        return Err(Error::NeedsChordCounter { what: "a member of a chord" });
    }
    let partial_args = std::slice::from_ref(result);
    let parent = Given { parent: Some(Parent::from(message)), parent_wins: true, ..Given::default() };
    let mut sender = Sender { context, publish: Vec::new() };
    let mut sent = send_callbacks(message, partial_args, &parent, &mut sender)?;
    let mut chain = elements("`chain`", &message.embed.chain)?;
    if let Some(step) = chain.pop() {
        let given = Given { rest: Some(chain), ..parent };
        sent.extend(sender.send(Signature::parse(&step)?, partial_args, given)?);
    }
    Ok(Next { publish: sender.publish, children: children(sent), ..Next::default() })
}

/// One callback is sent as it is; of several, groups go first and each on its own, the others together as one group.
fn send_callbacks(
    message: &TaskMessage,
    partial_args: &[Bytes],
    given: &Given<'_>,
    sender: &mut Sender<'_, '_>,
) -> Result<Vec<Sent>, Error> {
    let callbacks = elements("`callbacks`", &message.embed.callbacks)?;
    let mut callbacks = callbacks.iter().map(Signature::parse).collect::<Result<Vec<_>, _>>()?;
    let mut sent = Vec::new();
    if callbacks.len() > 1 {
        let (groups, others): (Vec<_>, Vec<_>) =
            callbacks.into_iter().partition(|callback| callback.subtask_type.as_deref() == Some("group"));
        callbacks = groups;
        if !others.is_empty() {
            callbacks.push(Signature::group(&others));
        }
    }
    for callback in callbacks {
        sent.extend(sender.send(callback, partial_args, given.clone())?);
    }
    Ok(sent)
}

/// After failure: the steps that will never run, and the errbacks, which get the task's id before their own arguments.
///
/// Infallible: what can't be sent is in [`Next::refused`], since an errback never changes what became of its task.
pub fn on_failure(message: &TaskMessage, context: &mut Context<'_>) -> Next {
    let embed = &message.embed;
    let mut next = Next::default();
    if embed.is_empty() {
        return next;
    }
    match elements("`chain`", &embed.chain) {
        Ok(steps) => steps.iter().for_each(|step| fail_step(step, &mut next)),
        Err(error) => next.refused.push(error),
    }
    match elements("`errbacks`", &embed.errbacks) {
        Ok(errbacks) => send_errbacks(message, &errbacks, context, &mut next),
        Err(error) => next.refused.push(error),
    }
    next
}

/// The step's own id and, behind a chord, its body's.
fn fail_step(step: &Bytes, next: &mut Next) {
    let mut step = step.clone();
    loop {
        match Signature::parse(&step).map_err(Error::from).and_then(|signature| {
            let body = chord_body(&signature)?;
            Ok((failed_step(&signature), body))
        }) {
            Ok((failed, body)) => {
                next.also_fail.extend(failed);
                match body {
                    Some(body) => step = body,
                    None => return,
                }
            }
            Err(error) => return next.refused.push(error),
        }
    }
}

fn failed_step(signature: &Signature) -> Option<FailedStep> {
    let id = json::text(signature.option("task_id")?).ok()?;
    let group_id = signature.option("group_id").and_then(|group| json::text(group).ok());
    Some(FailedStep {
        id: TaskId::new(id).ok()?,
        group_id,
        task: signature.task.clone(),
        args: signature.args.clone(),
        kwargs: signature.kwargs.clone(),
    })
}

fn chord_body(signature: &Signature) -> Result<Option<Bytes>, Error> {
    if signature.subtask_type.as_deref() != Some("chord") {
        return Ok(None);
    }
    let kwargs = json::entries(&signature.kwargs)
        .map_err(|source| Error::Json { what: "`kwargs` of a chord", source })?;
    Ok(kwargs
        .into_iter()
        .find(|(name, body)| name == "body" && Kind::of(body) == Some(Kind::Object))
        .map(|(_, body)| body))
}

/// All together as one group; one that can't be sent does not keep back the others.
fn send_errbacks(message: &TaskMessage, errbacks: &[Bytes], context: &mut Context<'_>, next: &mut Next) {
    let mut good = Vec::new();
    for errback in errbacks {
        match Signature::parse(errback).map_err(Error::from).and_then(|errback| {
            shape(&errback)?;
            Ok(errback)
        }) {
            Ok(errback) => good.push(errback),
            Err(error) => next.refused.push(error),
        }
    }
    if good.is_empty() {
        return;
    }
    let id = json::string(message.headers.id.as_str());
    let given = Given { parent: Some(Parent::from(message)), parent_wins: true, ..Given::default() };
    let mut sender = Sender { context, publish: Vec::new() };
    match sender.send(Signature::group(&good), &[id], given) {
        Ok(sent) => {
            next.publish = sender.publish;
            next.children = children(sent.into_iter().collect());
        }
        Err(error) => next.refused.push(error),
    }
}

/// The task's place is taken by a signature: it gets the task's id, its callbacks, its errbacks and the rest of its chain.
///
/// The task itself ends without a result.
///
/// # Errors
/// When the signature can't take the place: a group or a chord (which need a chord counter), a chain of no steps, or one that
/// is a member of a chord of its own.
pub fn replace(
    message: &TaskMessage,
    signature: &Signature,
    context: &mut Context<'_>,
) -> Result<Next, Error> {
    if message.embed.chord.is_some() || signature.option("chord").is_some() {
        return Err(Error::NeedsChordCounter { what: "replacing a member of a chord" });
    }
    let mut steps = match shape(signature)? {
        Shape::Simple => vec![signature.clone()],
        Shape::Chain(steps) => steps,
        Shape::Group(_) => return Err(Error::NeedsChordCounter { what: "replacing a task by a group" }),
    };
    if steps.last().is_some_and(|last| last.subtask_type.as_deref() == Some("group")) {
        return Err(Error::NeedsChordCounter { what: "replacing a task by a chain that ends in a group" });
    }
    take_place(message, &mut steps)?;
    for step in elements("`chain`", &message.embed.chain)?.iter().rev() {
        steps.push(Signature::parse(step)?);
    }
    check_steps(&steps)?;
    let nesting = message.headers.replaced_task_nesting.saturating_add(1).to_string();
    for step in &mut steps {
        step.set_option("replaced_task_nesting", nesting.clone());
    }
    let given = Given { parent: Some(Parent::from(message)), parent_wins: true, ..Given::default() };
    let mut sender = Sender { context, publish: Vec::new() };
    sender.send_chain(steps, &[], given)?;
    Ok(Next { publish: sender.publish, ..Next::default() })
}

/// The last step ends what the task would have ended.
fn take_place(message: &TaskMessage, steps: &mut [Signature]) -> Result<(), Error> {
    if let Some(errbacks) = &message.embed.errbacks {
        for step in &mut *steps {
            add_links(step, "link_error", errbacks)?;
        }
    }
    let last = steps.last_mut().ok_or_else(|| Error::Unsupported {
        expected: "a signature with something in it to take a task's place",
        found: "a chain of no steps".to_owned(),
    })?;
    if let Some(callbacks) = &message.embed.callbacks {
        add_links(last, "link", callbacks)?;
    }
    last.set_option("task_id", json::string(message.headers.id.as_str()));
    if let Some(group) = &message.headers.group {
        last.set_option("group_id", json::string(group));
    }
    if let Some(index) = message.headers.group_index {
        last.set_option("group_index", index.to_string());
    }
    Ok(())
}

fn children(sent: Vec<Sent>) -> Option<Bytes> {
    let tuples: Vec<Bytes> = sent.into_iter().map(|sent| sent.child).collect();
    (!tuples.is_empty()).then(|| json::array_of(&tuples))
}

fn elements(what: &'static str, array: &Option<Bytes>) -> Result<Vec<Bytes>, Error> {
    match array {
        Some(array) => json::elements(array).map_err(|source| Error::Json { what, source }),
        None => Ok(Vec::new()),
    }
}
