//! A task's record as a person wants to see it: its value, or its exception with the traceback.

use std::path::Path;
use std::process::ExitCode;

use rwork_protocol::json::Value;
use rwork_protocol::{Exception, Record, State, repr};

use crate::failure::{Exit, Failure};
use crate::printer::{Printer, Tone, tame};
use crate::render::{self, Blob, Shown, json};

/// Prints a record; the exit status is that of the task.
pub(crate) fn record(printer: &Printer, record: &Record, output: Option<&Path>) -> anyhow::Result<ExitCode> {
    let exit = if failed(&record.status) { Exit::Failed } else { Exit::Done };
    if let (Some(path), Exit::Done, true) = (output, exit, record.status.is_ready()) {
        write_output(printer, record, path)?;
    }
    if printer.json() {
        printer.line(json::pretty(&Value::parse(&record.encode())?));
    } else if failed(&record.status) {
        failure(printer, record);
    } else if !record.status.is_ready() {
        state(printer, record);
    } else if output.is_none() {
        value(printer, &record.result)?;
    }
    Ok(exit.into())
}

fn failed(state: &State) -> bool {
    matches!(state, State::Failure | State::Revoked)
}

/// Any JSON value on stdout.
pub(crate) fn value(printer: &Printer, result: &[u8]) -> anyhow::Result<()> {
    match render::show(&Value::parse(result)?) {
        Shown::Text(text) if printer.stdout_is_terminal() => printer.line(tame(&text)),
        Shown::Text(text) | Shown::Lines(text) => printer.line(text),
        Shown::Pairs(pairs) => printer.pairs(&pairs),
        Shown::Table(head, rows) => {
            let head: Vec<&str> = head.iter().map(String::as_str).collect();
            printer.table(&head, rows);
        }
    }
    Ok(())
}

/// `ValueError: no luck`, then the traceback.
fn failure(printer: &Printer, record: &Record) {
    let headline = headline(record);
    printer.complaint(printer.tint_note(Tone::Bad, tame(&headline)));
    for line in record.traceback.as_deref().unwrap_or_default().lines() {
        // Celery's tracebacks end with the headline, which stands above already.
        if line.trim_end() != headline {
            printer.complaint(printer.tint_note(Tone::Faint, format!("  {}", tame(line))));
        }
    }
}

/// An exception as Python prints one.
pub(crate) fn headline(record: &Record) -> String {
    let Ok(exception) = Exception::decode(&record.result) else { return record.status.to_string() };
    let arguments = match Value::parse(&exception.exc_message) {
        Ok(Value::Array(arguments)) => arguments,
        _ => Vec::new(),
    };
    let message = match arguments.as_slice() {
        [] => String::new(),
        [Value::String(text)] => text.clone(),
        [only] => repr::value(&only.to_bytes()),
        _ => repr::args(&exception.exc_message),
    };
    if message.is_empty() { exception.exc_type } else { format!("{}: {message}", exception.exc_type) }
}

/// A state that is not the last: `PROGRESS {"done": 3}`.
fn state(printer: &Printer, record: &Record) {
    printer.line(progress(record));
}

/// A state and what the task says about it, on one line.
pub(crate) fn progress(record: &Record) -> String {
    let detail = match (&record.status, Value::parse(&record.result)) {
        (State::Retry, _) => format!(" {}", headline(record)),
        (_, Ok(Value::Null) | Err(_)) => String::new(),
        (_, Ok(value)) => format!(" {}", json::compact(&value)),
    };
    tame(&format!("{}{detail}", record.status)).replace('\n', " ")
}

/// Bytes as they are, text as text, anything else as JSON.
fn write_output(printer: &Printer, record: &Record, path: &Path) -> anyhow::Result<()> {
    let value = Value::parse(&record.result)?;
    let (content, what) = match bytes_in(&value) {
        Some(blob) => (blob.0.clone(), blob.to_string()),
        None => match &value {
            Value::String(text) => (text.clone().into_bytes(), "text".to_owned()),
            other => ((json::pretty(other) + "\n").into_bytes(), "JSON".to_owned()),
        },
    };
    std::fs::write(path, content)
        .map_err(|error| Failure::failed(format!("failed to write `{}`", path.display())).because(error))?;
    printer.note(format!("{}: {what}", path.display()));
    Ok(())
}

/// The bytes that a value is, or the only ones that it holds.
fn bytes_in(value: &Value) -> Option<Blob> {
    if let Some(blob) = Blob::of(value) {
        return Some(blob);
    }
    let Value::Object(entries) = value else { return None };
    let mut blobs = entries.iter().filter_map(|(_, value)| Blob::of(value));
    blobs.next().filter(|_| blobs.next().is_none())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rwork_protocol::TaskId;

    use super::*;

    fn failed(result: &str) -> Record {
        Record {
            task_id: TaskId::new("t").unwrap(),
            status: State::Failure,
            result: Bytes::copy_from_slice(result.as_bytes()),
            traceback: None,
            children: None,
            date_done: None,
            group_id: None,
            parent_id: None,
            component: None,
            extended: None,
            other: Vec::new(),
        }
    }

    #[test]
    fn exceptions_read_as_python_prints_them() {
        let check = |result: &str, expect: &str| assert_eq!(headline(&failed(result)), expect);
        check("1", "FAILURE");
        check(
            r#"{"exc_type": "ValueError", "exc_message": ["no luck"], "exc_module": "builtins"}"#,
            "ValueError: no luck",
        );
        check(r#"{"exc_type": "KeyError", "exc_message": [], "exc_module": "builtins"}"#, "KeyError");
        check(r#"{"exc_type": "E", "exc_message": [3], "exc_module": "m"}"#, "E: 3");
        check(r#"{"exc_type": "E", "exc_message": ["a", 1], "exc_module": "m"}"#, "E: ('a', 1)");
    }

    #[test]
    fn a_state_is_one_tame_line() {
        let mut record = failed(r#"{"done": 3, "of": "\u001b[1m"}"#);
        record.status = State::Custom("PROGRESS".into());
        assert_eq!(progress(&record), r#"PROGRESS {"done": 3, "of": "\u001b[1m"}"#);
    }

    #[test]
    fn the_only_bytes_are_found() {
        let value = |text: &str| Value::parse(text.as_bytes()).unwrap();
        let blob = r#"{"__type__": "base64", "__value__": "aGk="}"#;
        assert_eq!(bytes_in(&value(blob)), Some(Blob(b"hi".to_vec())));
        assert_eq!(bytes_in(&value(&format!(r#"{{"w": 1, "data": {blob}}}"#))), Some(Blob(b"hi".to_vec())));
        assert_eq!(bytes_in(&value(&format!(r#"{{"a": {blob}, "b": {blob}}}"#))), None);
        assert_eq!(bytes_in(&value("[1]")), None);
    }
}
