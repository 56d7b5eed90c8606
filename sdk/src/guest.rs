//! The guest's side of `rwork:task`: the generated bindings, and what a plugin's exports do.
//!
//! Nothing is set up ahead of need: the panic hook and the logger are two words written at the start of a run, and every
//! import is called only by what asks for it.

use crate::call::Input;
use crate::cleanup::EndReason;
use crate::context::Context;
use crate::error::{Ending, Failure};
use crate::host::Host;
use crate::plugin::Plugin;
use crate::{JSON, Retry, RetryLimit, TaskError};

use self::bindings::exports::rwork::task::handler::{Description, TaskDeclaration};
use self::bindings::rwork::task::{log as host_log, types};
use self::cleanup_bindings::exports::rwork::task::cleanup::Reason;

/// What built the plugin, as it tells the host.
const SDK: &str = concat!("rwork-rust/", env!("CARGO_PKG_VERSION"));

/// The bindings of world `plugin`.
#[allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "generated code"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "rwork:task/plugin",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "rwork::__private::bindings",
    });
}

/// The bindings of world `cleanup-hook`, with the types of the other.
#[allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "generated code"
)]
pub mod cleanup_bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "rwork:task/cleanup-hook",
        pub_export_macro: true,
        export_macro_name: "export_cleanup",
        default_bindings_module: "rwork::__private::cleanup_bindings",
        with: { "rwork:task/types@0.1.0": super::bindings::rwork::task::types },
    });
}

/// The bindings of `rwork:task/stop` alone, with the pollable of the crate that guests wait with.
#[cfg(feature = "wasi")]
#[allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod waiting {
    wit_bindgen::generate!({
        inline: "package rwork:waiting; world waiting { import rwork:task/stop@0.1.0; }",
        path: "../wit",
        world: "rwork:waiting/waiting",
        with: {
            "rwork:task/stop@0.1.0": generate,
            "wasi:io/poll@0.2.0": wasip2::io::poll,
        },
    });
}

#[cfg(feature = "wasi")]
impl Context {
    /// Becomes ready when the host wishes the task to stop, and stays ready: for a task that waits for WASI events itself,
    /// and wants to learn of its soft time limit while it waits.
    pub fn stop_pollable(&self) -> wasip2::io::poll::Pollable {
        waiting::rwork::task::stop::subscribe()
    }
}

/// Answers `describe`.
pub fn describe(plugin: &Plugin) -> Description {
    let declarations = plugin.tasks().iter().map(|task| TaskDeclaration {
        name: task.name.to_owned(),
        summary: task.summary.to_owned(),
        options: task.options.to_owned(),
    });
    Description { sdk: SDK.to_owned(), options: String::new(), tasks: declarations.collect() }
}

/// Answers `run`.
///
/// # Errors
///
/// What the task ends with when it is not a value.
#[allow(clippy::result_large_err, reason = "the signature is the bindings'")]
pub fn run(plugin: &Plugin, call: types::Invocation) -> Result<types::Payload, types::Interruption> {
    set_up();
    let context = Context::new(call.task, call.id, Host);
    plugin.run(&context, input(call.input)).map(json).map_err(interruption)
}

/// Answers `cleanup`.
pub fn cleanup(plugin: &Plugin, call: types::Invocation, reason: Reason) {
    set_up();
    let reason = match reason {
        Reason::HardTimeLimit => EndReason::HardTimeLimit,
        Reason::MemoryLimit => EndReason::MemoryLimit,
        Reason::Trap(what) => EndReason::Trap(what),
        Reason::Revoked => EndReason::Revoked,
        Reason::Other(what) => EndReason::Other(what),
    };
    let context = Context::new(call.task, call.id, Host);
    plugin.cleanup(&context, &input(call.input), reason);
}

/// Exports the plugin of the calling crate.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    () => {
        #[doc(hidden)]
        struct __RworkPlugin;
        impl $crate::__private::bindings::exports::rwork::task::handler::Guest for __RworkPlugin {
            fn describe() -> $crate::__private::bindings::exports::rwork::task::handler::Description {
                $crate::__private::describe(&PLUGIN)
            }

            fn run(
                call: $crate::__private::bindings::rwork::task::types::Invocation,
            ) -> ::core::result::Result<
                $crate::__private::bindings::rwork::task::types::Payload,
                $crate::__private::bindings::rwork::task::types::Interruption,
            > {
                $crate::__private::run(&PLUGIN, call)
            }
        }
        $crate::__private::bindings::export_plugin!(__RworkPlugin with_types_in $crate::__private::bindings);
    };
}

/// Exports the cleanup hook of the calling crate.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_cleanup {
    () => {
        #[doc(hidden)]
        struct __RworkCleanup;
        impl $crate::__private::cleanup_bindings::exports::rwork::task::cleanup::Guest for __RworkCleanup {
            fn cleanup(
                call: $crate::__private::bindings::rwork::task::types::Invocation,
                reason: $crate::__private::cleanup_bindings::exports::rwork::task::cleanup::Reason,
            ) {
                $crate::__private::cleanup(&PLUGIN, call, reason)
            }
        }
        $crate::__private::cleanup_bindings::export_cleanup!(
            __RworkCleanup with_types_in $crate::__private::cleanup_bindings
        );
    };
}

fn set_up() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("panicked with a value that is no text");
        let location = info.location().map(ToString::to_string);
        host_log::panic(message, location.as_deref());
    }));
    if log::set_logger(&HostLog).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
}

/// The `log` crate's macros go to the worker's log.
struct HostLog;

impl log::Log for HostLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        host_log::enabled(level(metadata.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = level(record.level());
        if !host_log::enabled(level) {
            return;
        }
        let mut fields = vec![("target".to_owned(), record.target().to_owned())];
        if let (Some(file), Some(line)) = (record.file(), record.line()) {
            fields.push(("location".to_owned(), format!("{file}:{line}")));
        }
        host_log::emit(level, &record.args().to_string(), &fields);
    }

    fn flush(&self) {}
}

fn level(level: log::Level) -> host_log::Level {
    match level {
        log::Level::Error => host_log::Level::Error,
        log::Level::Warn => host_log::Level::Warn,
        log::Level::Info => host_log::Level::Info,
        log::Level::Debug => host_log::Level::Debug,
        log::Level::Trace => host_log::Level::Trace,
    }
}

fn input(input: types::Input) -> Input {
    match input {
        types::Input::Call(call) => {
            Input::Call { content_type: call.content_type, args: call.args, kwargs: call.kwargs }
        }
        types::Input::Raw(body) => Input::Raw { content_type: body.content_type, data: body.data },
    }
}

/// A payload of JSON.
pub(crate) fn json(data: Vec<u8>) -> types::Payload {
    types::Payload { content_type: JSON.to_owned(), data }
}

fn interruption(error: TaskError) -> types::Interruption {
    match error.into_ending() {
        Ending::Failed(failure) => types::Interruption::Failed(self::failure(failure)),
        Ending::Retry(retry) => types::Interruption::Retry(self::retry(retry)),
        Ending::Ignore => types::Interruption::Ignore,
        Ending::Reject { requeue, reason } => {
            types::Interruption::Reject(types::Rejection { requeue, reason })
        }
        Ending::Replace(signature) => match signature.to_json() {
            Ok(encoded) => types::Interruption::Replace(json(encoded.into_bytes())),
            Err(problem) => interruption(TaskError::from(problem)),
        },
    }
}

fn failure(failure: Failure) -> types::Failure {
    types::Failure {
        traceback: Some(failure.traceback()),
        exc_type: failure.exc_type,
        exc_module: Some(failure.exc_module),
        exc_args: json(failure.exc_args.into_bytes()),
        message: failure.message,
        retryable: failure.retryable,
    }
}

fn retry(retry: Retry) -> types::Retry {
    let options = retry.requested_options();
    let input = retry.input.map(|(args, kwargs)| {
        let (args, kwargs) = (args.into_bytes(), kwargs.into_bytes());
        types::Input::Call(types::CallArgs { content_type: JSON.to_owned(), args, kwargs })
    });
    types::Retry {
        delay_ms: retry.delay.map(milliseconds),
        limit: match retry.limit {
            RetryLimit::Inherit => types::RetryLimit::Inherit,
            RetryLimit::Unlimited => types::RetryLimit::Unlimited,
            RetryLimit::AtMost(most) => types::RetryLimit::AtMost(most),
        },
        input,
        cause: retry.cause.map(failure),
        options,
    }
}

/// Rounded up, so that a wait is never shorter than asked for.
pub(crate) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
