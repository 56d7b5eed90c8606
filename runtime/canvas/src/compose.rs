//! Composite signatures laid out flat, with their ids settled (`celery/canvas.py: prepare_steps, _freeze_group_tasks`).

use std::collections::VecDeque;

use bytes::Bytes;
use rwork_protocol::{Signature, TaskId, json};

use crate::options::list;
use crate::{Context, Error, FAN_OUT_MAX, tuple};

/// Options of a chain that belong to its last step.
const FOR_LAST_STEP: [&str; 4] = ["task_id", "group_id", "group_index", "chord"];

/// Options of a composite that are its own, and don't pass to what is in it as they are.
const OWN_OPTIONS: [&str; 7] = ["task_id", "group_id", "group_index", "chord", "chain", "link", "link_error"];

/// A signature by what it is made of.
#[derive(Debug)]
pub(crate) enum Shape {
    /// One message: the signature itself.
    Simple,
    /// Steps in the order of execution; only the last may be a group, none is a chain.
    Chain(Vec<Signature>),
    /// Members in the order of their index; none is a group.
    Group(Vec<Signature>),
}

/// Lays a signature out.
pub(crate) fn shape(signature: &Signature) -> Result<Shape, Error> {
    match signature.subtask_type.as_deref() {
        None | Some("xmap" | "xstarmap") => Ok(Shape::Simple),
        Some("chain") => chain(signature),
        Some("group") => group(signature).map(Shape::Group),
        Some("chord") => Err(Error::NeedsChordCounter { what: "a chord" }),
        Some(other) => Err(Error::Unsupported {
            expected: "a signature of type `chain`, `group`, `chord`, `xmap`, `xstarmap` or none",
            found: format!("type `{other}`"),
        }),
    }
}

fn chain(signature: &Signature) -> Result<Shape, Error> {
    let mut steps = flatten(signature)?;
    check_steps(&steps)?;
    if let Some(first) = steps.first_mut() {
        pass_options(signature, first);
    }
    Ok(Shape::Chain(steps))
}

/// A group before the last step, or a chord anywhere, needs its members counted.
pub(crate) fn check_steps(steps: &[Signature]) -> Result<(), Error> {
    let before_last = steps.len().saturating_sub(1);
    for (place, step) in steps.iter().enumerate() {
        match step.subtask_type.as_deref() {
            Some("chord") => return Err(Error::NeedsChordCounter { what: "a chord" }),
            Some("group") if place < before_last => {
                return Err(Error::NeedsChordCounter { what: "a group that is followed by a step" });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Steps in order: nested chains spliced in, groups of one taken out of their group, empty groups left out.
fn flatten(chain: &Signature) -> Result<Vec<Signature>, Error> {
    let mut steps = Vec::new();
    for task in tasks(chain)? {
        match task.subtask_type.as_deref() {
            Some("chain") => steps.extend(flatten(&task)?),
            Some("group") => {
                let mut members = group(&task)?;
                match (members.len(), members.pop()) {
                    (1, Some(member)) if member.subtask_type.as_deref() == Some("chain") => {
                        steps.extend(flatten(&member)?);
                    }
                    (1, Some(member)) => steps.push(member),
                    (_, None) => {}
                    _ => steps.push(task),
                }
            }
            _ => steps.push(task),
        }
        check_fan_out(steps.len())?;
    }
    move_options(chain, &mut steps)?;
    Ok(steps)
}

/// `link` and what makes up its identity go to a chain's last step, `link_error` to each.
fn move_options(chain: &Signature, steps: &mut [Signature]) -> Result<(), Error> {
    if let Some(errbacks) = chain.option("link_error") {
        for step in &mut *steps {
            add_links(step, "link_error", errbacks)?;
        }
    }
    let Some(last) = steps.last_mut() else { return Ok(()) };
    if let Some(callbacks) = chain.option("link") {
        add_links(last, "link", callbacks)?;
    }
    for name in FOR_LAST_STEP {
        if let Some(value) = chain.option(name) {
            last.set_option(name, value.clone());
        }
    }
    Ok(())
}

/// Members in the order in which Celery 5.7 counts them: a nested group's come first and reversed.
fn group(group: &Signature) -> Result<Vec<Signature>, Error> {
    for name in ["link", "link_error"] {
        if group.option(name).is_some_and(|links| !json::is_empty(links)) {
            return Err(Error::Unsupported {
                expected: "a group without links (link its members, or put it into a chord)",
                found: format!("option `{name}` on a group"),
            });
        }
    }
    if group.option("chord").is_some() {
        return Err(Error::NeedsChordCounter { what: "the header of a chord" });
    }
    let mut waiting = VecDeque::from(tasks(group)?);
    let mut members = Vec::new();
    while let Some(mut task) = waiting.pop_front() {
        if task.subtask_type.as_deref() == Some("group") {
            for member in tasks(&task)? {
                waiting.push_front(member);
            }
        } else {
            pass_options(group, &mut task);
            members.push(task);
        }
        check_fan_out(members.len() + waiting.len())?;
    }
    Ok(members)
}

fn check_fan_out(messages: usize) -> Result<(), Error> {
    if messages > FAN_OUT_MAX { Err(Error::FanOut { limit: FAN_OUT_MAX }) } else { Ok(()) }
}

/// A composite's options for messages (`countdown`, `queue`, …) win over those of what is in it.
fn pass_options(from: &Signature, to: &mut Signature) {
    for (name, value) in &from.options {
        if !OWN_OPTIONS.contains(&name.as_str()) && !json::is_null(value) {
            to.set_option(name, value.clone());
        }
    }
}

/// Adds callbacks or errbacks that are not there yet.
pub(crate) fn add_links(signature: &mut Signature, option: &str, links: &Bytes) -> Result<(), Error> {
    let read =
        |links: &Bytes| json::elements(&list(links)).map_err(|source| Error::Json { what: "links", source });
    let mut all = match signature.option(option) {
        Some(own) => read(own)?,
        None => Vec::new(),
    };
    for link in read(links)? {
        if !all.contains(&link) {
            all.push(link);
        }
    }
    signature.set_option(option, json::array_of(&all));
    Ok(())
}

/// `kwargs.tasks` of a chain or a group.
fn tasks(composite: &Signature) -> Result<Vec<Signature>, Error> {
    let json_error = |source| Error::Json { what: "`kwargs.tasks` of a composite signature", source };
    let kwargs = json::entries(&composite.kwargs).map_err(json_error)?;
    let Some((_, tasks)) = kwargs.iter().find(|(name, value)| name == "tasks" && !json::is_null(value))
    else {
        return Ok(Vec::new());
    };
    let tasks = json::elements(tasks).map_err(json_error)?;
    tasks.iter().map(|task| Signature::parse(task).map_err(Error::from)).collect()
}

/// Settles every id within a signature and returns the tuple under which its result will be found.
pub(crate) fn freeze(
    signature: &mut Signature,
    parent: Option<&Bytes>,
    context: &mut Context<'_>,
) -> Result<Bytes, Error> {
    match shape(signature)? {
        Shape::Simple => Ok(tuple::task(&settle_id(signature, context)?, parent)),
        Shape::Group(mut members) => {
            let id = settle_id(signature, context)?;
            let tuples = freeze_each(&mut members, context)?;
            set_tasks(signature, &members)?;
            Ok(tuple::group(&id, parent, &tuples))
        }
        Shape::Chain(mut steps) => {
            let tuple = freeze_steps(&mut steps, parent, context)?;
            set_tasks(signature, &steps)?;
            tuple.ok_or_else(|| Error::Unsupported {
                expected: "a chain of at least one step",
                found: "a chain of none".to_owned(),
            })
        }
    }
}

fn freeze_each(members: &mut [Signature], context: &mut Context<'_>) -> Result<Vec<Bytes>, Error> {
    members.iter_mut().map(|member| freeze(member, None, context)).collect()
}

/// Settles the ids of steps in order; the last one's tuple leads back to the first. `None` when there are no steps.
pub(crate) fn freeze_steps(
    steps: &mut [Signature],
    parent: Option<&Bytes>,
    context: &mut Context<'_>,
) -> Result<Option<Bytes>, Error> {
    let mut last = parent.cloned();
    for step in &mut *steps {
        last = Some(freeze(step, last.as_ref(), context)?);
    }
    Ok(last)
}

/// The id in the options, or a new one put there.
pub(crate) fn settle_id(signature: &mut Signature, context: &mut Context<'_>) -> Result<TaskId, Error> {
    if let Some(id) = signature.option("task_id") {
        let id = json::text(id).map_err(|source| Error::Json { what: "option `task_id`", source })?;
        return TaskId::new(id).map_err(|source| Error::Name { name: "task_id", source });
    }
    let id = (context.ids)();
    signature.set_option("task_id", json::string(id.as_str()));
    Ok(id)
}

fn set_tasks(composite: &mut Signature, tasks: &[Signature]) -> Result<(), Error> {
    let tasks: Vec<Bytes> = tasks.iter().map(Signature::encode).collect();
    let over = json::object_of(&[("tasks", json::array_of(&tasks))]);
    composite.kwargs = json::merge(&composite.kwargs, &over)
        .map_err(|source| Error::Json { what: "`kwargs` of a composite signature", source })?;
    Ok(())
}
