//! A signature: a task, its arguments and its options, not sent yet (`celery/canvas.py`).

use bytes::Bytes;

use crate::json::{self, Kind, Scanner};
use crate::{InvalidName, TaskName};

/// One signature, in a message, returned by a guest, or about to be sent by a producer.
///
/// ```json
/// {"task": "wapp.add", "args": [2], "kwargs": {}, "options": {"task_id": "…"}, "subtask_type": null, "immutable": false}
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Task to be called; `celery.chain` and the like for composites.
    pub task: TaskName,
    /// Positional arguments: one JSON array.
    pub args: Bytes,
    /// Keyword arguments: one JSON object. Composites keep their members here.
    pub kwargs: Bytes,
    /// Options of the message by Celery's names, in order, each value as JSON.
    pub options: Vec<(String, Bytes)>,
    /// `chain`, `group`, `chord`, …; `None`: a simple signature.
    pub subtask_type: Option<String>,
    /// True: a parent's result is not put before `args`.
    pub immutable: bool,
    /// Unknown keys, in order.
    pub other: Vec<(String, Bytes)>,
}

/// Not a signature.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not even a JSON object.
    #[error("expected a signature to be one JSON object: {0}")]
    Undecodable(json::Error),
    /// A key has a value of the wrong kind.
    #[error("expected `{key}` of a signature to be {expected}, found {found}")]
    Shape {
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: Kind,
    },
    /// It names no task.
    #[error("expected a signature with `task`, found none")]
    NoTask,
    /// Its task can't be a task's name.
    #[error("expected `task` of a signature to be a task name: {0}")]
    TaskName(InvalidName),
}

impl Signature {
    /// A simple signature without arguments.
    pub fn new(task: TaskName) -> Self {
        Self {
            task,
            args: Bytes::from_static(b"[]"),
            kwargs: Bytes::from_static(b"{}"),
            options: Vec::new(),
            subtask_type: None,
            immutable: false,
            other: Vec::new(),
        }
    }

    /// The same with these positional arguments: one JSON array.
    #[must_use]
    pub fn with_args(mut self, args: impl Into<Bytes>) -> Self {
        self.args = args.into();
        self
    }

    /// The same with these keyword arguments: one JSON object.
    #[must_use]
    pub fn with_kwargs(mut self, kwargs: impl Into<Bytes>) -> Self {
        self.kwargs = kwargs.into();
        self
    }

    /// The same with one option more.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.set_option(name, value);
        self
    }

    /// The same, taking no parent's result (Celery's `.si()`).
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// Steps in the order of execution, each with the result of the one before it.
    pub fn chain(steps: &[Self]) -> Self {
        Self::composite("chain", "celery.chain", steps)
    }

    /// Members that run side by side.
    pub fn group(members: &[Self]) -> Self {
        Self::composite("group", "celery.group", members)
    }

    fn composite(kind: &str, task: &'static str, members: &[Self]) -> Self {
        let members: Vec<Bytes> = members.iter().map(Self::encode).collect();
        let kwargs = json::object_of(&[("tasks", json::array_of(&members))]);
        Self {
            task: TaskName::of_static(task),
            args: Bytes::from_static(b"[]"),
            kwargs,
            options: Vec::new(),
            subtask_type: Some(kind.to_owned()),
            immutable: false,
            other: Vec::new(),
        }
    }

    /// An option's value; `None` when absent or null.
    pub fn option(&self, name: &str) -> Option<&Bytes> {
        self.options
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
            .filter(|value| !json::is_null(value))
    }

    /// Sets an option, in its old place if it had one.
    pub fn set_option(&mut self, name: &str, value: impl Into<Bytes>) {
        match self.options.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.into(),
            None => self.options.push((name.to_owned(), value.into())),
        }
    }

    /// Takes an option out; `None` when it was absent or null.
    pub fn take_option(&mut self, name: &str) -> Option<Bytes> {
        let place = self.options.iter().position(|(known, _)| known == name)?;
        Some(self.options.remove(place).1).filter(|value| !json::is_null(value))
    }

    /// Reads one signature. Only `task` must be there; what is not known is kept.
    ///
    /// # Errors
    /// When it is not a JSON object or a known key has a value of the wrong kind.
    pub fn parse(signature: &Bytes) -> Result<Self, SignatureError> {
        let mut scanner = Scanner::new(signature).map_err(SignatureError::Undecodable)?;
        let mut parts = Parts::default();
        let mut key = scanner.first_key(str::to_owned).map_err(SignatureError::Undecodable)?;
        while let Some(name) = key {
            let value = scanner.raw().map_err(SignatureError::Undecodable)?;
            parts.put(name, value)?;
            key = scanner.next_key(str::to_owned).map_err(SignatureError::Undecodable)?;
        }
        scanner.finish().map_err(SignatureError::Undecodable)?;
        parts.into_signature()
    }

    /// The signature as one JSON object.
    pub fn encode(&self) -> Bytes {
        let mut entries = vec![
            ("task", json::string(self.task.as_str())),
            ("args", self.args.clone()),
            ("kwargs", self.kwargs.clone()),
            ("options", json::object_of(&self.options)),
            ("subtask_type", self.subtask_type.as_deref().map_or(Bytes::from_static(b"null"), json::string)),
            ("immutable", Bytes::from_static(if self.immutable { b"true" } else { b"false" })),
        ];
        entries.extend(self.other.iter().map(|(key, value)| (key.as_str(), value.clone())));
        json::object_of(&entries)
    }
}

#[derive(Default)]
struct Parts {
    task: Option<TaskName>,
    args: Option<Bytes>,
    kwargs: Option<Bytes>,
    options: Vec<(String, Bytes)>,
    subtask_type: Option<String>,
    immutable: bool,
    other: Vec<(String, Bytes)>,
}

impl Parts {
    fn put(&mut self, key: String, value: Bytes) -> Result<(), SignatureError> {
        match key.as_str() {
            "task" => {
                self.task = text("task", &value)?
                    .map(|name| TaskName::new(name).map_err(SignatureError::TaskName))
                    .transpose()?;
            }
            "args" => self.args = part("args", "an array or null", Kind::Array, value)?,
            "kwargs" => self.kwargs = part("kwargs", "an object or null", Kind::Object, value)?,
            "options" => {
                self.options = match part("options", "an object or null", Kind::Object, value)? {
                    Some(options) => json::entries(&options).map_err(SignatureError::Undecodable)?,
                    None => Vec::new(),
                };
            }
            "subtask_type" => self.subtask_type = text("subtask_type", &value)?,
            "immutable" => self.immutable = truth("immutable", &value)?,
            _ => {
                self.other.retain(|(known, _)| *known != key);
                self.other.push((key, value));
            }
        }
        Ok(())
    }

    fn into_signature(self) -> Result<Signature, SignatureError> {
        Ok(Signature {
            task: self.task.ok_or(SignatureError::NoTask)?,
            args: self.args.unwrap_or(Bytes::from_static(b"[]")),
            kwargs: self.kwargs.unwrap_or(Bytes::from_static(b"{}")),
            options: self.options,
            subtask_type: self.subtask_type,
            immutable: self.immutable,
            other: self.other,
        })
    }
}

fn wrong(key: &'static str, expected: &'static str, value: &[u8]) -> SignatureError {
    SignatureError::Shape { key, expected, found: Kind::of(value).unwrap_or(Kind::Null) }
}

fn text(key: &'static str, value: &Bytes) -> Result<Option<String>, SignatureError> {
    match Kind::of(value) {
        Some(Kind::Null) => Ok(None),
        Some(Kind::String) => json::text(value).map(Some).map_err(SignatureError::Undecodable),
        _ => Err(wrong(key, "a string or null", value)),
    }
}

fn truth(key: &'static str, value: &Bytes) -> Result<bool, SignatureError> {
    match &**value {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(wrong(key, "a boolean or null", value)),
    }
}

fn part(
    key: &'static str,
    expected: &'static str,
    wanted: Kind,
    value: Bytes,
) -> Result<Option<Bytes>, SignatureError> {
    match Kind::of(&value) {
        Some(Kind::Null) => Ok(None),
        Some(kind) if kind == wanted => Ok(Some(value)),
        _ => Err(wrong(key, expected, &value)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &'static str) -> Result<Signature, SignatureError> {
        Signature::parse(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn celerys_signature_is_read_and_written_back() {
        let text = r#"{"task": "wapp.add", "args": [2], "kwargs": {"y": 1}, "options": {"task_id": "t", "reply_to": null}, "subtask_type": null, "immutable": true, "chord_size": 3}"#;
        let mut signature = read(text).unwrap();
        assert_eq!(signature.encode(), text);
        assert!(signature.immutable && signature.option("reply_to").is_none());
        assert_eq!(signature.option("task_id").unwrap(), "\"t\"");
        signature.set_option("task_id", "\"u\"");
        assert_eq!(signature.take_option("task_id").unwrap(), "\"u\"");
        assert_eq!(signature.options, [("reply_to".to_owned(), Bytes::from_static(b"null"))]);
    }

    #[test]
    fn little_is_enough_and_what_is_wrong_is_named() {
        let small = read(r#"{"task": "t", "args": null, "options": null}"#).unwrap();
        assert_eq!(small, Signature::new(TaskName::new("t").unwrap()));
        for (text, part) in [
            ("[]", "one JSON object"),
            ("{}", "a signature with `task`, found none"),
            (r#"{"task": ""}"#, "task name"),
            (r#"{"task": 1}"#, "expected `task` of a signature to be a string or null, found a number"),
            (r#"{"task": "t", "args": {}}"#, "`args`"),
            (r#"{"task": "t", "kwargs": 1}"#, "`kwargs`"),
            (r#"{"task": "t", "options": []}"#, "`options`"),
            (r#"{"task": "t", "immutable": 1}"#, "`immutable`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn composites_are_built_as_celery_builds_them() {
        let add = Signature::new(TaskName::new("add").unwrap()).with_args("[1]").immutable();
        let chain = Signature::chain(std::slice::from_ref(&add)).encode();
        let add = String::from_utf8(add.encode().to_vec()).unwrap();
        let text = format!(
            r#"{{"task": "celery.chain", "args": [], "kwargs": {{"tasks": [{add}]}}, "options": {{}}, "subtask_type": "chain", "immutable": false}}"#
        );
        assert_eq!(chain, text);
        assert_eq!(Signature::group(&[]).kwargs, "{\"tasks\": []}");
    }

    proptest! {
        #[test]
        fn no_signature_panics(soup in json::tests::soup()) {
            if let Ok(signature) = Signature::parse(&soup.into()) {
                prop_assert_eq!(Signature::parse(&signature.encode()).unwrap(), signature);
            }
        }
    }
}
