//! From a signature to messages (`celery/canvas.py: apply_async`).

use bytes::Bytes;
use rwork_protocol::{Embed, Headers, Properties, Signature, TaskId, TaskMessage, expiration, json, repr};

use crate::compose::{Shape, freeze_steps, settle_id, shape};
use crate::options::Options;
use crate::{Applied, Context, Error, FAN_OUT_MAX, Outgoing, Parent, tuple};

/// What a broker takes as `delivery-mode` for a message that must outlive it.
const PERSISTENT: u8 = 2;

/// The messages that a signature comes to: one for a task, the first step of a chain, all members of a group.
///
/// `partial_args` are encoded values put before the signature's own, unless it is immutable. With a parent, the messages
/// belong to its workflow unless the signature's options say otherwise; without, each begins one.
///
/// # Errors
/// When the signature can't be understood or needs a chord counter. Nothing is to be published then.
pub fn apply(
    signature: &Signature,
    partial_args: &[Bytes],
    parent: Option<Parent<'_>>,
    context: &mut Context<'_>,
) -> Result<Applied, Error> {
    let mut sender = Sender { context, publish: Vec::new() };
    let given = Given { parent, ..Given::default() };
    let sent = sender.send(signature.clone(), partial_args, given)?;
    let (child, id) = sent.map_or((None, None), |sent| (Some(sent.child), Some(sent.id)));
    Ok(Applied { publish: sender.publish, child, id })
}

/// What the place that a signature is sent from gives to it.
#[derive(Clone, Default)]
pub(crate) struct Given<'a> {
    pub(crate) parent: Option<Parent<'a>>,
    /// True: the parent wins over the signature's own options.
    pub(crate) parent_wins: bool,
    /// The rest of the chain around it, last step first.
    pub(crate) rest: Option<Vec<Bytes>>,
    /// Group and place in it, unless the signature has a group of its own.
    pub(crate) group: Option<(String, u32)>,
}

/// What was sent.
pub(crate) struct Sent {
    /// Where the whole's result will be found.
    pub(crate) id: TaskId,
    /// For the parent's `children`.
    pub(crate) child: Bytes,
    /// For a group's members: the whole's result, leading back to its first step.
    pub(crate) result: Bytes,
}

/// Collects messages.
pub(crate) struct Sender<'a, 'c> {
    pub(crate) context: &'a mut Context<'c>,
    pub(crate) publish: Vec<Outgoing>,
}

impl Sender<'_, '_> {
    /// Sends a signature of any shape; `None` when there is nothing in it.
    pub(crate) fn send(
        &mut self,
        signature: Signature,
        partial_args: &[Bytes],
        given: Given<'_>,
    ) -> Result<Option<Sent>, Error> {
        match shape(&signature)? {
            Shape::Simple => self.send_simple(signature, partial_args, given).map(Some),
            Shape::Group(members) => self.send_group(signature, members, partial_args, given),
            Shape::Chain(steps) => {
                let partial_args = chain_args(&signature, partial_args)?;
                let outer = elements("option `chain`", signature.option("chain"))?;
                let given = Given { rest: given.rest.or(outer), ..given };
                self.send_chain(steps, &partial_args, given)
            }
        }
    }

    /// Sends the first step with the others in its message, last step first, after whatever surrounds them.
    pub(crate) fn send_chain(
        &mut self,
        mut steps: Vec<Signature>,
        partial_args: &[Bytes],
        given: Given<'_>,
    ) -> Result<Option<Sent>, Error> {
        if let (Some((group, index)), Some(last)) = (&given.group, steps.last_mut()) {
            set_group(last, group, *index);
        }
        let result = freeze_steps(&mut steps, None, self.context)?;
        let (Some(result), Some(last)) = (result, steps.last_mut()) else { return Ok(None) };
        let id = settle_id(last, self.context)?;
        let mut steps = steps.into_iter();
        let Some(first) = steps.next() else { return Ok(None) };
        let mut rest = given.rest.unwrap_or_default();
        rest.extend(steps.rev().map(|step| step.encode()));
        if !rest.is_empty() && first.subtask_type.as_deref() == Some("group") {
            return Err(Error::NeedsChordCounter { what: "a group that is followed by a step" });
        }
        let given = Given { rest: Some(rest), group: None, ..given };
        let sent = self.send(first, partial_args, given)?;
        Ok(sent.map(|sent| Sent { id, child: sent.child, result }))
    }

    /// Sends every member, each with its place.
    pub(crate) fn send_group(
        &mut self,
        mut signature: Signature,
        members: Vec<Signature>,
        partial_args: &[Bytes],
        given: Given<'_>,
    ) -> Result<Option<Sent>, Error> {
        if given.rest.as_ref().is_some_and(|rest| !rest.is_empty()) {
            return Err(Error::NeedsChordCounter { what: "a group that is followed by a step" });
        }
        let id = settle_id(&mut signature, self.context)?;
        let mut results = Vec::with_capacity(members.len());
        for (index, member) in (0..).zip(members) {
            let place = Given { rest: None, group: Some((id.to_string(), index)), ..given.clone() };
            results.extend(self.send(member, partial_args, place)?.map(|sent| sent.result));
        }
        let child = tuple::group(&id, None, &results);
        Ok((!results.is_empty()).then_some(Sent { id, child: child.clone(), result: child }))
    }

    fn send_simple(
        &mut self,
        mut signature: Signature,
        partial_args: &[Bytes],
        given: Given<'_>,
    ) -> Result<Sent, Error> {
        if self.publish.len() >= FAN_OUT_MAX {
            return Err(Error::FanOut { limit: FAN_OUT_MAX });
        }
        if let Some((group, index)) = &given.group {
            set_group(&mut signature, group, *index);
        }
        let options = Options::read(&signature.options, self.context.now)?;
        if options.chord.is_some() {
            return Err(Error::NeedsChordCounter { what: "a member of a chord" });
        }
        if !signature.immutable {
            signature.args = json::prepend(&signature.args, partial_args)
                .map_err(|source| Error::Json { what: "`args` of a signature", source })?;
        }
        let id = options.task_id.clone().unwrap_or_else(|| (self.context.ids)());
        let message = self.message(id.clone(), signature, options, given);
        self.publish.push(message);
        let tuple = tuple::task(&id, None);
        Ok(Sent { id, child: tuple.clone(), result: tuple })
    }

    fn message(&self, id: TaskId, signature: Signature, mut options: Options, given: Given<'_>) -> Outgoing {
        let Signature { task, args, kwargs, .. } = signature;
        let (root_id, parent_id) = lineage(&id, &mut options, &given);
        let headers = Headers {
            eta: options.eta,
            group: options.group_id.take(),
            group_index: options.group_index,
            retries: options.retries.unwrap_or(0),
            root_id: Some(root_id),
            parent_id,
            argsrepr: Some(repr::args(&args)),
            kwargsrepr: Some(repr::kwargs(&kwargs)),
            origin: self.context.origin.map(str::to_owned),
            replaced_task_nesting: options.replaced_task_nesting.unwrap_or(0),
            stamped_headers: options.stamped_headers.take(),
            stamps: options.stamps.take(),
            ..Headers::new(task, id.clone())
        };
        let properties = Properties {
            correlation_id: Some(id.as_str().to_owned()),
            delivery_mode: Some(PERSISTENT),
            ..Properties::default()
        };
        let embed = Embed {
            callbacks: options.link.take(),
            errbacks: options.link_error.take(),
            chain: given.rest.map(|rest| json::array_of(&rest)).or(options.chain.take()),
            chord: None,
        };
        let (eta, queue) = (options.eta, options.queue.take());
        let mut message = TaskMessage { headers, properties, args, kwargs, embed };
        options.override_features(&mut message);
        message.properties.expiration = message.headers.expires.map(|at| expiration(at, self.context.now));
        Outgoing { queue, message, eta }
    }
}

/// The workflow's first task and the sender.
fn lineage(id: &TaskId, options: &mut Options, given: &Given<'_>) -> (TaskId, Option<TaskId>) {
    let (own_root, own_parent) = (options.root_id.take(), options.parent_id.take());
    match given.parent {
        None => (own_root.unwrap_or_else(|| id.clone()), own_parent),
        Some(parent) if given.parent_wins => (parent.root.clone(), Some(parent.id.clone())),
        Some(parent) => (
            own_root.unwrap_or_else(|| parent.root.clone()),
            Some(own_parent.unwrap_or_else(|| parent.id.clone())),
        ),
    }
}

/// Gives a signature its group, unless it has one already.
fn set_group(signature: &mut Signature, group: &str, index: u32) {
    if signature.option("group_id").is_none() {
        signature.set_option("group_id", json::string(group));
        signature.set_option("group_index", index.to_string());
    }
}

/// What a chain's first step is given: the parent's values, then the chain's own arguments.
fn chain_args(chain: &Signature, partial_args: &[Bytes]) -> Result<Vec<Bytes>, Error> {
    let mut args = if chain.immutable { Vec::new() } else { partial_args.to_vec() };
    args.extend(elements("`args` of a chain", Some(&chain.args))?.unwrap_or_default());
    Ok(args)
}

fn elements(what: &'static str, array: Option<&Bytes>) -> Result<Option<Vec<Bytes>>, Error> {
    array.map(|array| json::elements(array).map_err(|source| Error::Json { what, source })).transpose()
}
