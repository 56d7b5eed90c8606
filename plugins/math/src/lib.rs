//! Arithmetic as tasks, and tasks that fail, wait and retry on request.
//!
//! ```text
//! rwork call math.add 2 2 --wait          4
//! rwork call math.mul 6 0.5 --wait        3.0
//! rwork call math.sum '[1, 2, 3]' --wait  6
//! rwork call math.sleep 0.5 --wait        0.5
//! rwork call math.retry 3 --wait          3
//! rwork call math.fail "no luck" --wait   ValueError: no luck
//! ```
//!
//! Integers stay integers, floats floats, as in Python; see [`Number`].

mod number;

use std::time::Duration;

use rwork::{Context, TaskError, log};

pub use number::Number;

/// How long `math.retry` waits between two attempts.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Adds two numbers.
#[rwork::task]
pub fn add(a: Number, b: Number) -> Result<Number, TaskError> {
    a.plus(b)
}

/// Multiplies two numbers.
#[rwork::task]
pub fn mul(a: Number, b: Number) -> Result<Number, TaskError> {
    a.times(b)
}

/// Adds up a list of numbers; the sum of none is 0.
#[rwork::task]
pub fn sum(numbers: Vec<Number>) -> Result<Number, TaskError> {
    numbers.into_iter().try_fold(Number::Integer(0), Number::plus)
}

/// Raises `ValueError(message)`.
#[rwork::task]
pub fn fail(message: &str) -> Result<(), TaskError> {
    Err(TaskError::new("ValueError", message))
}

/// Waits so many seconds and returns them. Waiting takes no CPU slot, and ends early at the soft time limit.
#[rwork::task]
pub fn sleep(ctx: &Context, seconds: f64) -> Result<f64, TaskError> {
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| {
        TaskError::new("ValueError", "sleep length must be a number of seconds, and not negative")
    })?;
    ctx.sleep(duration)?;
    Ok(seconds)
}

/// Retries so many times, a tenth of a second apart, and returns the number of retries.
#[rwork::task(max_retries = None)]
pub fn retry(ctx: &Context, times: u32) -> Result<u32, TaskError> {
    let retries = ctx.request().retries;
    if retries < times {
        log::info!("attempt {} of {}", retries + 1, times + 1);
        return Err(ctx.retry().delay(RETRY_DELAY).into());
    }
    Ok(retries)
}

rwork::plugin!(add, mul, sum, fail, sleep, retry);

#[cfg(test)]
mod tests {
    use rwork::testing::{self, TestContext};

    use super::*;

    /// The result of a task, or the text of its error, as a message would get it.
    fn run(task: &str, args: &str) -> String {
        testing::run(&PLUGIN, &TestContext::new(task), args, "{}").unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn numbers_keep_their_kind() {
        for (task, args, wanted) in [
            (
                "math.add",
                "[1, \"2\"]",
                "TypeError: add() argument 'b' is of the wrong type: invalid type: string \"2\", expected a number (got \"2\")",
            ),
            ("math.add", "[1]", "TypeError: add() missing 1 required positional argument: 'b'"),
            (
                "math.mul",
                "[170141183460469231731687303715884105727, 2]",
                "OverflowError: the product needs more than 128 bits",
            ),
            ("math.add", "[2, 2]", "4"),
            ("math.add", "[2, 2.0]", "4.0"),
            ("math.add", "[0.1, 0.2]", "0.30000000000000004"),
            ("math.add", "[9223372036854775807, 1]", "9223372036854775808"),
            ("math.add", "[NaN, 1]", "NaN"),
            ("math.mul", "[-Infinity, 2]", "-Infinity"),
            ("math.mul", "[6, 7]", "42"),
            ("math.mul", "[6, 0.5]", "3.0"),
            ("math.sum", "[[]]", "0"),
            ("math.sum", "[[1, 2, 3]]", "6"),
            ("math.sum", "[[1, 2.5]]", "3.5"),
        ] {
            assert_eq!(run(task, args), wanted, "{task}{args}");
        }
    }

    #[test]
    fn fail_raises_its_message() {
        let error = fail("no luck").unwrap_err();
        assert_eq!((error.exc_module(), error.exc_type()), (Some("builtins"), Some("ValueError")));
        assert_eq!(error.exc_args(), Some("[\"no luck\"]"));
    }

    #[test]
    fn sleep_waits_fractions() {
        let test = TestContext::new("math.sleep");
        assert_eq!(sleep(&test, 0.25).unwrap(), 0.25);
        assert_eq!(test.slept(), Duration::from_millis(250));
    }

    #[test]
    fn sleep_ends_at_the_soft_limit() {
        let test = TestContext::new("math.sleep").with_soft_limit(Duration::from_secs(1));
        assert_eq!(sleep(&test, 60.0).unwrap_err().exc_type(), Some("SoftTimeLimitExceeded"));
        assert_eq!(test.slept(), Duration::from_secs(1));
    }

    #[test]
    fn sleep_refuses_what_is_no_duration() {
        for seconds in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                sleep(&TestContext::new("math.sleep"), seconds).unwrap_err().exc_type(),
                Some("ValueError")
            );
        }
    }

    #[test]
    fn retry_counts_its_attempts() {
        for attempt in 0..3 {
            let error = retry(&TestContext::new("math.retry").with_retries(attempt), 3).unwrap_err();
            assert_eq!(error.as_retry().unwrap().requested_delay(), Some(RETRY_DELAY));
        }
        assert_eq!(retry(&TestContext::new("math.retry").with_retries(3), 3).unwrap(), 3);
    }
}
