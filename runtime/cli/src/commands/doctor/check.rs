//! One thing that was looked at.

use serde_json::{Value, json};

use crate::failure::hints_of;
use crate::printer::{Printer, Tone, tame};

/// How it fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// A worker works, but something will be missed.
    Warning,
    /// A worker would not work.
    Failed,
}

/// One finding.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) state: State,
    pub(crate) found: String,
    /// Empty: nothing to do.
    pub(crate) hint: String,
}

impl Check {
    pub(crate) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Ok, found: found.into(), hint: String::new() }
    }

    pub(crate) fn warning(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, state: State::Warning, found: found.into(), hint: hint.into() }
    }

    pub(crate) fn failed(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, state: State::Failed, found: found.into(), hint: hint.into() }
    }

    /// A check that ended in an error: the chain in one line, the hints below.
    pub(crate) fn failure(what: &'static str, error: &anyhow::Error) -> Self {
        Self::failed(what, format!("{error:#}"), hints_of(error).join("\n"))
    }

    pub(crate) fn print(&self, printer: &Printer) {
        let (tone, word) = match self.state {
            State::Ok => (Tone::Good, "ok"),
            State::Warning => (Tone::Warn, "warning"),
            State::Failed => (Tone::Bad, "failed"),
        };
        let word = printer.tint(tone, format!("{word:<7}"));
        printer.line(format!("{word}  {:<15}  {}", self.what, tame(&self.found)));
        for (place, line) in self.hint.lines().enumerate() {
            let label = if place == 0 { printer.tint(Tone::Strong, "hint:") } else { "     ".to_owned() };
            printer.line(format!("{:26}{label} {}", "", tame(line)));
        }
    }

    pub(crate) fn document(&self) -> Value {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
        };
        let hint = (!self.hint.is_empty()).then_some(&self.hint);
        json!({ "what": self.what, "state": state, "found": self.found, "hint": hint })
    }
}
