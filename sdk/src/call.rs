//! A call's arguments, bound to a function's parameters by Python's rules and with Python's error texts.
//!
//! Steps: find where each argument begins and ends, put it in the place of its parameter, decode it when the generated
//! code asks. Nothing is decoded that no parameter takes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned};

use crate::TaskError;
use crate::json::{self, JsonError};

/// How much of a wrong argument an error shows, in characters.
const SHOWN_MAX: usize = 60;

/// What a task is called with, as it came. A task whose only parameter (beside the context) is an `Input` decodes it
/// itself, and can accept other content than JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Celery's call shape.
    Call {
        /// The media type of both parts, for example `application/json`.
        content_type: String,
        /// One encoded array.
        args: Vec<u8>,
        /// One encoded map with string keys.
        kwargs: Vec<u8>,
    },
    /// A body of another shape, untouched.
    Raw {
        /// Its media type.
        content_type: String,
        /// The body.
        data: Vec<u8>,
    },
}

impl Input {
    /// A call with JSON arguments: an array and an object.
    pub fn json(args: impl Into<Vec<u8>>, kwargs: impl Into<Vec<u8>>) -> Self {
        Self::Call { content_type: JSON.to_owned(), args: args.into(), kwargs: kwargs.into() }
    }
}

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// One parameter, as `#[task]` writes it down.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// As callers write it.
    pub name: &'static str,
    /// Whether it has no default.
    pub required: bool,
}

/// A function's parameters, as `#[task]` writes them down.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// The function's name, as Python's errors show it.
    pub function: &'static str,
    /// Those filled by position or name.
    pub positional: &'static [Parameter],
    /// Whether there is a catch-all for further positional arguments.
    pub args: bool,
    /// Those filled by name alone.
    pub keyword: &'static [Parameter],
    /// Whether there is a catch-all for further named arguments.
    pub kwargs: bool,
}

/// A call whose arguments have found their parameters, not yet decoded.
#[derive(Debug)]
pub struct Bound<'a> {
    parameters: &'a Parameters,
    /// Positional parameters first, then keyword-only ones.
    values: Vec<Option<&'a str>>,
    rest: Vec<&'a str>,
    named: Vec<(Cow<'a, str>, &'a str)>,
}

/// Binds a call to parameters.
///
/// # Errors
///
/// `TypeError`, in Python's words, when the arguments do not fit; `ContentDisallowed` or `DecodeError` (of
/// `kombu.exceptions`) when they are not JSON.
pub fn bind<'a>(parameters: &'a Parameters, input: &'a Input) -> Result<Bound<'a>, TaskError> {
    let (args, kwargs) = texts(input)?;
    let args = json::elements(args).map_err(|error| decode_error("arguments", &error))?;
    let kwargs = json::members(kwargs).map_err(|error| decode_error("keyword arguments", &error))?;
    let mut bound = Bound {
        parameters,
        values: vec![None; parameters.positional.len() + parameters.keyword.len()],
        rest: Vec::new(),
        named: Vec::new(),
    };
    // In the order of CPython, which decides what is reported when several things are wrong.
    for (place, value) in bound.values.iter_mut().take(parameters.positional.len()).zip(&args) {
        *place = Some(value);
    }
    let keyword_from = parameters.positional.len().min(args.len());
    bound.bind_named(kwargs, keyword_from)?;
    if args.len() > parameters.positional.len() {
        if !parameters.args {
            return Err(bound.too_many(args.len()));
        }
        bound.rest = args.into_iter().skip(parameters.positional.len()).collect();
    }
    bound.check_missing()?;
    Ok(bound)
}

impl<'a> Bound<'a> {
    /// Decodes a parameter that has a value.
    ///
    /// # Errors
    ///
    /// `TypeError` naming the argument when the value is of another type.
    pub fn required<T: Deserialize<'a>>(&self, index: usize) -> Result<T, TaskError> {
        match self.values.get(index) {
            Some(Some(text)) => {
                json::from_str(text).map_err(|error| self.wrong_type(self.name(index), text, &error))
            }
            _ => Err(self.missing("positional", &[self.name(index)])),
        }
    }

    /// Decodes a parameter that may have a value.
    ///
    /// # Errors
    ///
    /// As [`Bound::required`].
    pub fn optional<T: Deserialize<'a>>(&self, index: usize) -> Result<Option<T>, TaskError> {
        match self.values.get(index) {
            Some(Some(_)) => self.required(index).map(Some),
            _ => Ok(None),
        }
    }

    /// Decodes the positional arguments that no parameter took.
    ///
    /// # Errors
    ///
    /// `TypeError` when one is of another type.
    pub fn rest<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        let list = format!("[{}]", self.rest.join(","));
        json::from_str(&list).map_err(|error| self.wrong_type("*args", &list, &error))
    }

    /// Decodes the named arguments that no parameter took.
    ///
    /// # Errors
    ///
    /// `TypeError` when one is of another type.
    pub fn named<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        let mut object = String::from("{");
        for (name, text) in &self.named {
            if object.len() > 1 {
                object.push(',');
            }
            json::write_string(&mut object, name);
            object.push(':');
            object.push_str(text);
        }
        object.push('}');
        json::from_str(&object).map_err(|error| self.wrong_type("**kwargs", &object, &error))
    }

    /// Decodes the argument of this name, wherever it stood; none when the call has none.
    pub(crate) fn by_name<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, TaskError> {
        let mut names = self.parameters.positional.iter().chain(self.parameters.keyword);
        if let Some(index) = names.position(|parameter| parameter.name == name) {
            return self.optional(index);
        }
        // As in Python's JSON, the last of several members with one name counts.
        let found = self.named.iter().rfind(|(other, _)| other == name);
        found
            .map(|(_, text)| json::from_str(text).map_err(|error| self.wrong_type(name, text, &error)))
            .transpose()
    }

    fn bind_named(&mut self, kwargs: Vec<(Cow<'a, str>, &'a str)>, taken: usize) -> Result<(), TaskError> {
        for (name, value) in kwargs {
            let mut names = self.parameters.positional.iter().chain(self.parameters.keyword);
            match names.position(|parameter| parameter.name == name) {
                Some(index) if index < taken => {
                    return Err(self.type_error(&format!("got multiple values for argument '{name}'")));
                }
                Some(index) => {
                    if let Some(place) = self.values.get_mut(index) {
                        *place = Some(value);
                    }
                }
                None if self.parameters.kwargs => self.named.push((name, value)),
                None => return Err(self.type_error(&format!("got an unexpected keyword argument '{name}'"))),
            }
        }
        Ok(())
    }

    fn check_missing(&self) -> Result<(), TaskError> {
        let positional = self.parameters.positional.len();
        let absent = |parameters: &'static [Parameter], from: usize| -> Vec<&'static str> {
            let values = self.values.iter().skip(from);
            let pairs = parameters.iter().zip(values);
            pairs
                .filter(|(parameter, value)| parameter.required && value.is_none())
                .map(|(found, _)| found.name)
                .collect()
        };
        let missing = absent(self.parameters.positional, 0);
        if !missing.is_empty() {
            return Err(self.missing("positional", &missing));
        }
        let missing = absent(self.parameters.keyword, positional);
        if missing.is_empty() { Ok(()) } else { Err(self.missing("keyword-only", &missing)) }
    }

    fn missing(&self, kind: &str, names: &[&str]) -> TaskError {
        let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        let list = match quoted.as_slice() {
            [first, second] => format!("{first} and {second}"),
            [init @ .., last] if init.len() > 1 => format!("{}, and {last}", init.join(", ")),
            other => other.join(""),
        };
        self.type_error(&format!(
            "missing {} required {kind} argument{}: {list}",
            names.len(),
            plural(names.len())
        ))
    }

    fn too_many(&self, given: usize) -> TaskError {
        let most = self.parameters.positional.len();
        let least = self.parameters.positional.iter().filter(|parameter| parameter.required).count();
        let takes = if least < most {
            format!("from {least} to {most} positional arguments")
        } else {
            format!("{most} positional argument{}", plural(most))
        };
        let named = self.values.iter().skip(most).flatten().count();
        let also = match named {
            0 => String::new(),
            named => {
                format!(
                    " positional argument{} (and {named} keyword-only argument{})",
                    plural(given),
                    plural(named)
                )
            }
        };
        let were = if given == 1 && named == 0 { "was" } else { "were" };
        self.type_error(&format!("takes {takes} but {given}{also} {were} given"))
    }

    fn wrong_type(&self, name: &str, text: &str, error: &JsonError) -> TaskError {
        let mut shown: String = text.chars().take(SHOWN_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        self.type_error(&format!("argument '{name}' is of the wrong type: {error} (got {shown})"))
    }

    fn type_error(&self, text: &str) -> TaskError {
        TaskError::placeless("TypeError", format!("{}() {text}", self.parameters.function)).not_retryable()
    }

    fn name(&self, index: usize) -> &'static str {
        self.parameters
            .positional
            .iter()
            .chain(self.parameters.keyword)
            .nth(index)
            .map_or("?", |found| found.name)
    }
}

/// The texts of args and kwargs.
fn texts(input: &Input) -> Result<(&str, &str), TaskError> {
    let disallowed = |found: &dyn fmt::Display| {
        let text =
            format!("Refusing to deserialize content of type {found}: this task accepts a call in JSON");
        TaskError::placeless("ContentDisallowed", text).module("kombu.exceptions").not_retryable()
    };
    let (args, kwargs) = match input {
        Input::Call { content_type, args, kwargs } if content_type == JSON => (args, kwargs),
        Input::Call { content_type, .. } => return Err(disallowed(content_type)),
        Input::Raw { content_type, .. } => {
            return Err(disallowed(&format_args!("{content_type} that is no call")));
        }
    };
    let text = |bytes| std::str::from_utf8(bytes).map_err(|error| decode_error("arguments", &error));
    Ok((text(args)?, text(kwargs)?))
}

fn decode_error(what: &str, error: &dyn fmt::Display) -> TaskError {
    TaskError::placeless("DecodeError", format!("the {what} are not JSON: {error}"))
        .module("kombu.exceptions")
        .not_retryable()
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
