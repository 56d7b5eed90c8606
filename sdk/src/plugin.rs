//! What a plugin consists of, and the dispatch from a task's name to its function.

use serde::Serialize;

use crate::call::{Input, Parameters};
use crate::cleanup::{EndReason, Ended};
use crate::{Context, TaskError, json};

/// The tasks of a plugin; made by [`crate::plugin!`].
#[derive(Debug)]
pub struct Plugin {
    tasks: &'static [Definition],
}

/// What `#[task]` writes down of one function.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The registered name.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// A JSON object of Celery's options; empty: none.
    pub options: &'static str,
    /// What a call binds to.
    pub parameters: Parameters,
    /// From an input to the JSON of the result.
    pub run: fn(&Context, Input) -> Result<Vec<u8>, TaskError>,
    /// Tidies up after a run that was ended from outside.
    pub cleanup: Option<fn(&Context, &Ended<'_>)>,
}

/// Implemented by `#[task]` for the marker beside each function.
pub trait Task {
    /// The task.
    const DEFINITION: Definition;
}

impl Plugin {
    /// A plugin of these tasks.
    pub const fn new(tasks: &'static [Definition]) -> Self {
        Self { tasks }
    }

    /// What the plugin declares, in the order of [`crate::plugin!`].
    pub fn tasks(&self) -> &'static [Definition] {
        self.tasks
    }

    /// Runs a task: from its input to the JSON of its result.
    ///
    /// # Errors
    ///
    /// What the task returns, a `TypeError` when the arguments do not fit it, or `NotRegistered`.
    pub(crate) fn run(&self, context: &Context, input: Input) -> Result<Vec<u8>, TaskError> {
        let Some(task) = self.find(context.task()) else {
            return Err(TaskError::placeless("NotRegistered", context.task())
                .module("celery.exceptions")
                .not_retryable());
        };
        (task.run)(context, input)
    }

    /// Tidies up after a task, if it declares how.
    pub(crate) fn cleanup(&self, context: &Context, input: &Input, reason: EndReason) {
        let Some(task) = self.find(context.task()) else { return };
        if let Some(cleanup) = task.cleanup {
            cleanup(context, &Ended::new(reason, input, &task.parameters));
        }
    }

    /// A plugin has few tasks: comparing their names is quicker than any table that would first have to be built.
    fn find(&self, name: &str) -> Option<&'static Definition> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

/// Encodes a task's result.
///
/// # Errors
///
/// `EncodeError` when it has no JSON, for example a map with lists as keys.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, TaskError> {
    json::to_vec(value).map_err(|error| {
        let text = format!("the result has no JSON: {error}");
        TaskError::placeless("EncodeError", text).module("kombu.exceptions").not_retryable()
    })
}

/// Makes a plugin of tasks: exports them to the host, installs the panic hook and routes the `log` crate's macros.
///
/// ```
/// #[rwork::task]
/// fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// mod shapes {
///     /// The area of a rectangle.
///     #[rwork::task(name = "shapes.area", time_limit = "20s")]
///     pub fn area(width: f64, #[default(1.0)] height: f64) -> f64 {
///         width * height
///     }
/// }
///
/// rwork::plugin!(add, shapes::area);
/// # fn main() {}
/// ```
///
/// It defines `PLUGIN`, which native tests run tasks by name on: see [`crate::testing`].
#[macro_export]
macro_rules! plugin {
    ($($($segment:ident)::+),+ $(,)?) => {
        /// The tasks of this plugin.
        pub static PLUGIN: $crate::Plugin = $crate::Plugin::new(&[
            $(<$($segment)::+::Task as $crate::__private::Task>::DEFINITION),+
        ]);
        $crate::__export_plugin! {}
        $crate::__cleanup_chain! { $([$($segment)::+])+ }
    };
}

/// Asks one task after the other whether it has a cleanup function; the first that has exports the hook.
#[doc(hidden)]
#[macro_export]
macro_rules! __cleanup_chain {
    () => {};
    ([$($segment:ident)::+] $($rest:tt)*) => {
        $($segment)::+::hook! { $($rest)* }
    };
}

/// On a native target there is nothing to export to.
#[doc(hidden)]
#[cfg(not(target_family = "wasm"))]
#[macro_export]
macro_rules! __export_plugin {
    () => {};
}

/// On a native target there is nothing to export to.
#[doc(hidden)]
#[cfg(not(target_family = "wasm"))]
#[macro_export]
macro_rules! __export_cleanup {
    () => {};
}
