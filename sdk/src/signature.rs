//! Celery's signatures: a task with its arguments and options, not yet sent, and the workflows made of them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::json::{self, JsonError};

/// A task with its arguments and options, or a chain, group or chord of such.
///
/// ```
/// use rwork::Signature;
///
/// let mail = Signature::new("mail.send").arg("ada@example.com").kwarg("subject", "hello").queue("mail");
/// let all = Signature::chain([Signature::new("report.build").args((2026, 11)), mail]);
/// assert_eq!(all.task(), "celery.chain");
/// ```
///
/// A value without JSON (a map with lists as keys) is noticed when the signature is sent.
#[derive(Clone, Debug)]
pub struct Signature {
    task: String,
    kind: Option<&'static str>,
    /// Each the JSON of one positional argument.
    args: Vec<String>,
    /// Each a name and the JSON of its value.
    kwargs: Vec<(String, String)>,
    options: Vec<(String, String)>,
    immutable: bool,
    problem: Option<JsonError>,
}

impl Signature {
    /// A call of one task, without arguments.
    pub fn new(task: impl Into<String>) -> Self {
        Self {
            task: task.into(),
            kind: None,
            args: Vec::new(),
            kwargs: Vec::new(),
            options: Vec::new(),
            immutable: false,
            problem: None,
        }
    }

    /// One after the other; each gets the result before it as its first argument, unless it is immutable.
    pub fn chain(tasks: impl IntoIterator<Item = Self>) -> Self {
        Self::canvas("celery.chain", "chain").with_tasks("tasks", tasks)
    }

    /// All at once.
    pub fn group(tasks: impl IntoIterator<Item = Self>) -> Self {
        Self::canvas("celery.group", "group").with_tasks("tasks", tasks)
    }

    /// All of `header` at once, then `body` with the list of their results.
    pub fn chord(header: impl IntoIterator<Item = Self>, body: Self) -> Self {
        let header = Self::group(header);
        let mut chord = Self::canvas("celery.chord", "chord");
        chord.problem = header.problem.clone().or_else(|| body.problem.clone());
        chord.kwargs.push(("kwargs".to_owned(), "{}".to_owned()));
        chord.kwargs.push(("header".to_owned(), header.write()));
        chord.kwargs.push(("body".to_owned(), body.write()));
        chord
    }

    /// Adds one positional argument.
    #[must_use]
    pub fn arg(mut self, value: impl Serialize) -> Self {
        if let Some(value) = self.encode(&value) {
            self.args.push(value);
        }
        self
    }

    /// Adds the positional arguments of a tuple or a list.
    #[must_use]
    pub fn args(mut self, values: impl Serialize) -> Self {
        let Some(list) = self.encode(&values) else { return self };
        match json::elements(&list) {
            Ok(values) => self.args.extend(values.into_iter().map(str::to_owned)),
            Err(_) => {
                self.note(JsonError::new("expected the arguments of a signature to be a tuple or a list"))
            }
        }
        self
    }

    /// Sets one keyword argument.
    #[must_use]
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        if let Some(value) = self.encode(&value) {
            set(&mut self.kwargs, name.into(), value);
        }
        self
    }

    /// Sets an option by Celery's name: `task_id`, `priority`, `expires`, `headers`, `time_limit`, …
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        if let Some(value) = self.encode(&value) {
            set(&mut self.options, name.into(), value);
        }
        self
    }

    /// Sends it to this queue.
    #[must_use]
    pub fn queue(self, queue: &str) -> Self {
        self.option("queue", queue)
    }

    /// Sends it under this id; sending the same id twice is one task.
    #[must_use]
    pub fn task_id(self, id: &str) -> Self {
        self.option("task_id", id)
    }

    /// Not before so long from now.
    #[must_use]
    pub fn countdown(self, delay: Duration) -> Self {
        self.seconds("countdown", delay)
    }

    /// Not after so long from now.
    #[must_use]
    pub fn expires(self, after: Duration) -> Self {
        self.seconds("expires", after)
    }

    /// Ignores the result before it in a chain: Celery's `si()`.
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// The task's name; `celery.chain`, `celery.group` or `celery.chord` for a workflow.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The signature as Celery writes it.
    ///
    /// # Errors
    ///
    /// The first argument or option that has no JSON.
    pub(crate) fn to_json(&self) -> Result<String, JsonError> {
        match &self.problem {
            Some(problem) => Err(problem.clone()),
            None => Ok(self.write()),
        }
    }

    /// Whole seconds stay integers, as Celery's clients write them.
    fn seconds(self, name: &str, duration: Duration) -> Self {
        match duration.subsec_nanos() {
            0 => self.option(name, duration.as_secs()),
            _ => self.option(name, duration.as_secs_f64()),
        }
    }

    fn canvas(task: &str, kind: &'static str) -> Self {
        Self { kind: Some(kind), ..Self::new(task) }
    }

    fn with_tasks(mut self, name: &str, tasks: impl IntoIterator<Item = Self>) -> Self {
        let mut list = Vec::new();
        for task in tasks {
            if let Some(problem) = &task.problem {
                self.note(problem.clone());
            }
            list.push(task.write());
        }
        self.kwargs.push((name.to_owned(), format!("[{}]", list.join(","))));
        self
    }

    fn encode(&mut self, value: &impl Serialize) -> Option<String> {
        json::to_string(value).map_err(|problem| self.note(problem)).ok()
    }

    fn note(&mut self, problem: JsonError) {
        self.problem.get_or_insert(problem);
    }

    fn write(&self) -> String {
        let mut out = String::from("{\"task\":");
        json::write_string(&mut out, &self.task);
        out.push_str(",\"args\":[");
        out.push_str(&self.args.join(","));
        out.push_str("],\"kwargs\":");
        write_object(&mut out, &self.kwargs);
        out.push_str(",\"options\":");
        write_object(&mut out, &self.options);
        out.push_str(",\"subtask_type\":");
        match self.kind {
            Some(kind) => json::write_string(&mut out, kind),
            None => out.push_str("null"),
        }
        out.push_str(if self.immutable { ",\"immutable\":true}" } else { ",\"immutable\":false}" });
        out
    }
}

impl fmt::Display for Signature {
    /// As Celery writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write())
    }
}

fn set(members: &mut Vec<(String, String)>, name: String, value: String) {
    match members.iter_mut().find(|(present, _)| *present == name) {
        Some((_, old)) => *old = value,
        None => members.push((name, value)),
    }
}

fn write_object(out: &mut String, members: &[(String, String)]) {
    out.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::write_string(out, name);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
}
