//! Which tasks a message leads to: its own, and every one that its follow-ups name, however deep.

use bytes::Bytes;
use rwork_protocol::json::Value;
use rwork_protocol::{TaskMessage, json};

/// Deeper composites than this are no one's workflow.
const DEPTH_MAX: usize = 32;

/// Options of a signature that hold signatures.
const FOLLOW_UPS: [&str; 4] = ["link", "link_error", "chain", "chord"];
/// Keyword arguments of a composite that hold signatures.
const MEMBERS: [&str; 4] = ["tasks", "header", "body", "task"];

/// Every task name in a message and its follow-ups.
///
/// # Errors
/// A sentence that says why that can't be told.
pub(crate) fn tasks_of(message: &TaskMessage) -> Result<Vec<String>, String> {
    let mut tasks = vec![message.headers.task.as_str().to_owned()];
    let embed = &message.embed;
    for part in [&embed.callbacks, &embed.errbacks, &embed.chain, &embed.chord].into_iter().flatten() {
        collect(&read(part)?, 0, &mut tasks)?;
    }
    if message.headers.task.as_str().starts_with(BUILT_IN) {
        collect_members(&read(&message.kwargs)?, 0, &mut tasks)?;
    }
    Ok(tasks)
}

/// Every task name in one encoded signature.
///
/// # Errors
/// A sentence that says why that can't be told.
pub(crate) fn tasks_of_signature(signature: &Bytes) -> Result<Vec<String>, String> {
    let mut tasks = Vec::new();
    collect(&read(signature)?, 0, &mut tasks)?;
    Ok(tasks)
}

/// Celery's composites are tasks of its own, whose arguments are signatures.
const BUILT_IN: &str = "celery.";

fn read(value: &Bytes) -> Result<Value, String> {
    Value::parse(value).map_err(|error: json::Error| format!("expected signatures: {error}"))
}

/// A signature, or a list of them.
fn collect(value: &Value, depth: usize, tasks: &mut Vec<String>) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("expected signatures nested at most {DEPTH_MAX} deep"));
    }
    if let Value::Array(signatures) = value {
        return signatures.iter().try_for_each(|signature| collect(signature, depth + 1, tasks));
    }
    let Some(task) = value.get("task").and_then(Value::as_str) else { return Ok(()) };
    let composite =
        value.get("subtask_type").is_some_and(|kind| *kind != Value::Null) || task.starts_with(BUILT_IN);
    if composite {
        value.get("kwargs").map_or(Ok(()), |kwargs| collect_members(kwargs, depth, tasks))?;
    } else {
        tasks.push(task.to_owned());
    }
    let options = value.get("options");
    FOLLOW_UPS
        .iter()
        .filter_map(|name| options.and_then(|options| options.get(name)))
        .try_for_each(|follow_up| collect(follow_up, depth + 1, tasks))
}

fn collect_members(kwargs: &Value, depth: usize, tasks: &mut Vec<String>) -> Result<(), String> {
    MEMBERS
        .iter()
        .filter_map(|name| kwargs.get(name))
        .try_for_each(|member| collect(member, depth + 1, tasks))
}

#[cfg(test)]
mod tests {
    use rwork_protocol::{Embed, NewTask, TaskName, Timestamp};

    use super::*;

    fn check(embed: Embed, expect: &[&str]) {
        let new = NewTask { embed, ..NewTask::new(TaskName::new("a").unwrap()) };
        let message = new.build(Timestamp::default()).unwrap();
        assert_eq!(tasks_of(&message).unwrap(), expect);
    }

    #[test]
    fn every_name_is_found_however_deep() {
        check(Embed::default(), &["a"]);
        check(
            Embed { chain: Some(r#"[{"task": "c"}, {"task": "b"}]"#.into()), ..Embed::default() },
            &["a", "c", "b"],
        );
        let hidden = r#"[{"task": "b", "options": {"link_error": [{"task": "x"}], "chord": {"task": "y"}}}]"#;
        check(Embed { callbacks: Some(hidden.into()), ..Embed::default() }, &["a", "b", "x", "y"]);
        let group = r#"[{"task": "celery.group", "subtask_type": "group",
            "kwargs": {"tasks": [{"task": "b"}, {"task": "celery.chain", "kwargs": {"tasks": [{"task": "c"}]}}]}}]"#;
        check(Embed { errbacks: Some(group.into()), ..Embed::default() }, &["a", "b", "c"]);
    }

    #[test]
    fn data_that_looks_like_a_signature_is_not_one() {
        let data =
            r#"[{"task": "b", "kwargs": {"tasks": [{"task": "not-sent"}]}, "args": [{"task": "nor-this"}]}]"#;
        check(Embed { callbacks: Some(data.into()), ..Embed::default() }, &["a", "b"]);
    }

    #[test]
    fn no_end_is_refused() {
        let deep = format!("{}{{\"task\": \"b\"}}{}", "[".repeat(60), "]".repeat(60));
        let new = NewTask {
            embed: Embed { chain: Some(deep.into()), ..Embed::default() },
            ..NewTask::new(TaskName::new("a").unwrap())
        };
        assert!(tasks_of(&new.build(Timestamp::default()).unwrap()).unwrap_err().contains("32 deep"));
    }
}
