//! How a call that did not return ended, in the user's words.
//!
//! The order of the questions matters: a guest that is killed while an allocation fails was killed, and one whose
//! allocation failed looks like one that panicked.

use wasmtime::{PoolConcurrencyLimitError, Store, Trap as Code, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::backtrace;
use crate::control::Kill;
use crate::imports::wait::HostPanicked;
use crate::invocation::Limits;
use crate::outcome::{Outcome, Trap};
use crate::state::{DirUnavailable, State, hostcall_bytes_max};

/// wasmtime's own type for this is private; a test holds its text.
const TOO_MUCH_COPIED: &str = "too much data is being copied between the host and the guest";

/// The outcome of a call that failed.
pub(crate) fn of_error(error: &wasmtime::Error, store: &mut Store<State>, limits: &Limits) -> Outcome {
    let trace = error.downcast_ref::<WasmBacktrace>().and_then(backtrace::render);
    if let Some(kill) = error.downcast_ref::<Kill>() {
        return of_kill(*kill, limits, trace);
    }
    if let Some(fault) = host_fault(error) {
        return Outcome::HostFault(fault);
    }
    let state = store.data_mut();
    if let Some(wanted) = state.memory.denied() {
        return Outcome::MemoryLimit { cap: state.memory.cap(), wanted };
    }
    let copied_too_much = format!("{:#}", error.root_cause()).starts_with(TOO_MUCH_COPIED);
    if copied_too_much && trace.is_none() {
        // Refused before it was copied: larger than what is still measured.
        let size = hostcall_bytes_max(limits).saturating_add(1);
        return Outcome::ResultTooLarge { limit: limits.result_bytes_max, size };
    }
    let stderr = state.stderr_tail();
    let message = match error.downcast_ref::<I32Exit>() {
        Some(exit) => format!("the task ended its program with exit({}) instead of returning", exit.0),
        None if copied_too_much => {
            format!("the task passed more than {} bytes to one call of the host", hostcall_bytes_max(limits))
        }
        None => trap_message(error, state.last_words.take(), &stderr),
    };
    Outcome::Trap(Trap { message, backtrace: trace, stderr })
}

/// The outcome of a guest that was ended from outside.
pub(crate) fn of_kill(kill: Kill, limits: &Limits, backtrace: Option<String>) -> Outcome {
    match kill {
        Kill::HardTimeLimit => {
            Outcome::HardTimeLimit { limit: limits.hard_time.unwrap_or_default(), backtrace }
        }
        Kill::Stopped(reason) => Outcome::Killed(reason),
    }
}

fn host_fault(error: &wasmtime::Error) -> Option<String> {
    let is_ours = error.is::<PoolConcurrencyLimitError>()
        || error.is::<HostPanicked>()
        || error.is::<DirUnavailable>()
        // Of memory, file descriptors or mappings; guests see their own errors as values.
        || error.is::<std::io::Error>();
    is_ours.then(|| format!("{error:#}"))
}

fn trap_message(error: &wasmtime::Error, last_words: Option<String>, stderr: &str) -> String {
    let code = error.downcast_ref::<Code>();
    let deep = error.downcast_ref::<WasmBacktrace>().is_some_and(backtrace::is_deep);
    let is_panic = matches!(code, None | Some(Code::UnreachableCodeReached));
    if is_panic && let Some(words) = last_words.or_else(|| panic_in(stderr)) {
        return words;
    }
    match code {
        Some(Code::StackOverflow) => "call stack exhausted: the recursion is too deep".to_owned(),
        Some(Code::UnreachableCodeReached) => "the guest aborted (`unreachable` instruction)".to_owned(),
        // A language with a stack of its own in linear memory runs over its end, before the engine's is full.
        Some(Code::MemoryOutOfBounds) if deep => {
            "the guest's own stack overflowed: the recursion is too deep".to_owned()
        }
        Some(Code::MemoryOutOfBounds) => {
            "out of bounds memory access: a stray pointer, or the guest's own stack overflowed".to_owned()
        }
        Some(code) => code.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => format!("{:#}", error.root_cause()),
    }
}

/// A Rust panic as the standard library writes it: the place on one line, the message on the next ones.
fn panic_in(stderr: &str) -> Option<String> {
    let (_, text) = stderr.rsplit_once("panicked at ")?;
    let (place, rest) = text.split_once('\n').unwrap_or((text, ""));
    let message = rest.split("\nnote: run with").next().unwrap_or_default().trim_end();
    let place = place.trim_end_matches(':');
    Some(if message.is_empty() {
        format!("panicked at {place}")
    } else {
        format!("panicked at {place}: {message}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_read_from_stderr() {
        for (stderr, expect) in [
            ("", None),
            ("just noise", None),
            (
                "noise\nthread 'main' (1) panicked at src/lib.rs:3:5:\nboom\nnote: run with `RUST_BACKTRACE=1` …",
                Some("panicked at src/lib.rs:3:5: boom"),
            ),
            ("thread '<unnamed>' panicked at src/lib.rs:3:5:", Some("panicked at src/lib.rs:3:5")),
        ] {
            assert_eq!(panic_in(stderr).as_deref(), expect);
        }
    }
}
