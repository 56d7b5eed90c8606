//! The `#[task]` attribute of the crate `rwork`; use it from there.
//!
//! Steps: read the options (`options`, `value`), read the function's parameters (`parameters`), write the code
//! that binds a call to them (`expand`). The function itself stays as it was written, so that it can be called and
//! tested like any other. Nothing here runs in a guest: what a task declares becomes a constant at compile time.

mod expand;
mod options;
mod parameters;
mod value;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a task out of a plain function. The function stays as it is: it can be called and tested like any other.
///
/// ```text
/// /// The first paragraph becomes the summary that `rwork plugins list` shows.
/// #[rwork::task(name = "img.thumbnail", soft_time_limit = "20s", max_retries = 5, autoretry_for = [ConnectionError])]
/// fn thumbnail(ctx: &Context, url: &str, #[default(128)] width: u32) -> Result<Thumbnail, TaskError> { … }
/// ```
///
/// # Options
///
/// All are optional; a bare name means `= true`. Durations are numbers of seconds or text (`"500ms"`, `"1h30m"`), sizes
/// numbers of bytes or text (`"64MiB"`). What is not given is the worker's default.
///
/// | option | value |
/// |---|---|
/// | `name` | the registered name; default: package and function, `math.add` |
/// | `summary` | one line for people; default: the first paragraph of the documentation |
/// | `bind` | `true`: the first parameter must be `&Context` (it may be anyway) |
/// | `max_retries` | a number, or `None` for no limit |
/// | `default_retry_delay` | duration |
/// | `autoretry_for`, `dont_autoretry_for` | lists of exception names |
/// | `retry_backoff` | `true`, or the first delay |
/// | `retry_backoff_max` | duration |
/// | `retry_jitter` | `true` or `false` |
/// | `rate_limit` | tasks per second, or `"100/m"` |
/// | `time_limit`, `soft_time_limit` | duration |
/// | `memory`, `result_bytes`, `log_bytes` | size |
/// | `acks_late`, `acks_on_failure`, `acks_on_timeout`, `acks_on_failure_or_timeout`, `reject_on_worker_lost` | `true` or `false` |
/// | `ignore_result`, `store_errors_even_if_ignored`, `track_started` | `true` or `false` |
/// | `queue` | name |
/// | `priority` | 0 to 255 |
/// | `expires` | duration |
/// | `accepts` | list of media types; other than JSON only for a task that takes an `Input` |
/// | `cleanup` | path of a `fn(&Context, &Ended)` that tidies up after a run that was ended from outside |
///
/// # Parameters
///
/// Arguments bind by position and by name, by Python's rules and with Python's error texts. A first parameter of type
/// `&Context` is filled by rwork. `#[default(expression)]` makes one optional, and so does the type `Option<T>`.
/// `#[args] rest: Vec<T>` takes all further positional arguments, and what follows it can only be named; `#[kwargs] named:
/// BTreeMap<String, T>` takes all further named ones. References work: `&str`, `&[T]`, `&T`. A single parameter of type
/// `rwork::Input` takes the call undecoded.
///
/// # Result
///
/// Anything that serde can serialize, or a `Result` of it whose error turns into a `TaskError`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as options::Options);
    let function = parse_macro_input!(function as syn::ItemFn);
    expand::task(&options, function).unwrap_or_else(syn::Error::into_compile_error).into()
}
