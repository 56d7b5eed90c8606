//! The values of task options that are more than a number or a flag.

use std::time::Duration;

use rwork_protocol::QueueName;
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};

use crate::strict::{Setting, parsed};

/// Most names in one list: more is a mistake, and every failure is compared with each.
const NAMES_MAX: usize = 100;

/// How often a task is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRetries {
    /// For ever.
    Unlimited,
    /// So many attempts after the first.
    AtMost(u32),
}

impl Setting for MaxRetries {
    fn null() -> Option<Self> {
        Some(Self::Unlimited)
    }
}

impl<'de> Deserialize<'de> for MaxRetries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = MaxRetries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number of retries or \"unlimited\"")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<MaxRetries, E> {
                u32::try_from(value)
                    .map(MaxRetries::AtMost)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<MaxRetries, E> {
                let unsigned =
                    u64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))?;
                self.visit_u64(unsigned)
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<MaxRetries, E> {
                if value == "unlimited" {
                    Ok(MaxRetries::Unlimited)
                } else {
                    Err(E::invalid_value(Unexpected::Str(value), &self))
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The delay of automatic retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// `default_retry_delay` each time.
    Off,
    /// So many seconds, doubled with each retry.
    From(u32),
}

impl Setting for Backoff {}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Backoff;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or a number of seconds")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Backoff, E> {
                Ok(if on { Backoff::From(1) } else { Backoff::Off })
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Backoff, E> {
                self.visit_f64(value as f64)
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Backoff, E> {
                self.visit_f64(value as f64)
            }

            /// Celery's `int(max(1.0, retry_backoff))`, and its truth value: 0 is off.
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Backoff, E> {
                match value {
                    0.0 => Ok(Backoff::Off),
                    value if value > 0.0 && value <= f64::from(u32::MAX) => {
                        Ok(Backoff::From(value.max(1.0) as u32))
                    }
                    _ => Err(E::invalid_value(Unexpected::Float(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// Celery's rate: `"10/m"`, `"2/s"`, `"0.5/h"`, or a number per second; 0 or empty: unlimited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit(Option<f64>);

impl RateLimit {
    /// Reads Celery's notation.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a rate such as `10/m`, `2/s`, `0.5/h` or a number per second, got `{}`",
                text.escape_debug()
            )
        };
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let per = match unit.trim() {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return Err(wrong()),
        };
        let count: f64 = if text.is_empty() { 0.0 } else { count.trim().parse().map_err(|_| wrong())? };
        if !count.is_finite() || count < 0.0 {
            return Err(wrong());
        }
        Ok(Self((count > 0.0).then_some(count / per)))
    }

    /// Starts per second; none: unlimited.
    pub fn per_second(self) -> Option<f64> {
        self.0
    }
}

impl Setting for RateLimit {}

impl<'de> Deserialize<'de> for RateLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = RateLimit;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a rate such as \"10/m\" or a number per second")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RateLimit, E> {
                RateLimit::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<RateLimit, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<RateLimit, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<RateLimit, E> {
                self.visit_str(&value.to_string())
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// Names of exceptions: `ValueError`, `mypackage.errors.Busy`; `Exception` stands for every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionNames(pub Vec<String>);

impl ExceptionNames {
    /// Whether an exception of this class and module is named.
    pub fn contains(&self, exc_type: &str, exc_module: Option<&str>) -> bool {
        self.0.iter().any(|name| match name.rsplit_once('.') {
            Some((module, class)) => class == exc_type && exc_module == Some(module),
            None => name == exc_type || name == "Exception" || name == "BaseException",
        })
    }
}

impl Setting for ExceptionNames {}

impl<'de> Deserialize<'de> for ExceptionNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names.len() > NAMES_MAX || names.iter().any(String::is_empty) {
            return Err(D::Error::custom(format_args!(
                "expected at most {NAMES_MAX} names of exceptions, none empty"
            )));
        }
        Ok(Self(names))
    }
}

/// Media types that a task reads, in the order of its preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentTypes(pub Vec<String>);

impl ContentTypes {
    /// Whether a body of this type is handed to the task as it is.
    pub fn contains(&self, content_type: &str) -> bool {
        self.0.iter().any(|known| known == "*" || known == content_type)
    }
}

impl Default for ContentTypes {
    fn default() -> Self {
        Self(vec![rwork_sandbox::JSON.to_owned()])
    }
}

impl Setting for ContentTypes {}

impl<'de> Deserialize<'de> for ContentTypes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names.is_empty() || names.len() > NAMES_MAX {
            return Err(D::Error::custom(format_args!(
                "expected 1 to {NAMES_MAX} content types, got {}",
                names.len()
            )));
        }
        names
            .into_iter()
            .map(|name| media_type(&name).map_err(D::Error::custom))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// kombu's short names stand for their media types.
fn media_type(name: &str) -> Result<String, String> {
    match name {
        "json" => Ok(rwork_sandbox::JSON.to_owned()),
        "msgpack" => Ok("application/x-msgpack".to_owned()),
        "yaml" => Ok("application/x-yaml".to_owned()),
        "*" => Ok(name.to_owned()),
        _ if name.contains('/') && !name.contains(char::is_whitespace) => Ok(name.to_owned()),
        _ => Err(format!(
            "expected `json`, `msgpack`, `yaml`, `*` or a media type, got `{}`",
            name.escape_debug()
        )),
    }
}

/// A queue's name in a table of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOption(pub QueueName);

impl Setting for QueueOption {}

impl<'de> Deserialize<'de> for QueueOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| QueueName::new(text).map(Self))
    }
}

/// Celery's `get_exponential_backoff_interval`: `min(max, factor · 2^retries)`, in whole seconds.
pub(super) fn exponential(factor: u32, retries: u32, max: Duration) -> Duration {
    let doubled = u64::from(factor).saturating_mul(1_u64.checked_shl(retries).unwrap_or(u64::MAX));
    Duration::from_secs(doubled).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_celerys() {
        for bad in ["10/w", "m", "-1/s", "10/m/s", "inf", "ten"] {
            assert!(RateLimit::parse(bad).is_err(), "{bad}");
        }
        let table = [
            ("10/m", Some(10.0 / 60.0)),
            ("2/s", Some(2.0)),
            ("0.5/h", Some(0.5 / 3_600.0)),
            ("3", Some(3.0)),
        ];
        for (text, rate) in table.into_iter().chain([("0", None), ("", None), ("0/m", None)]) {
            assert_eq!(RateLimit::parse(text).unwrap().per_second(), rate, "{text}");
        }
    }

    #[test]
    fn exceptions_match_by_name_and_module() {
        let names = ExceptionNames(vec!["ValueError".into(), "app.errors.Busy".into()]);
        assert!(names.contains("ValueError", Some("builtins")));
        assert!(names.contains("Busy", Some("app.errors")));
        assert!(!names.contains("Busy", Some("other")));
        assert!(!names.contains("Busy", None));
        assert!(ExceptionNames(vec!["Exception".into()]).contains("Anything", None));
        assert!(!ExceptionNames::default().contains("Anything", None));
    }

    #[test]
    fn backoff_is_capped_and_never_overflows() {
        let max = Duration::from_secs(600);
        let table = [(1, 0, 1), (1, 3, 8), (5, 2, 20), (1, 10, 600), (u32::MAX, 200, 600)];
        for (factor, retries, seconds) in table {
            assert_eq!(exponential(factor, retries, max), Duration::from_secs(seconds), "{factor} {retries}");
        }
    }

    #[test]
    fn short_names_stand_for_media_types() {
        let types: ContentTypes = serde_json::from_str(r#"["msgpack", "json"]"#).unwrap();
        assert!(types.contains("application/x-msgpack") && types.contains("application/json"));
        assert!(!types.contains("application/x-yaml"));
        assert!(serde_json::from_str::<ContentTypes>(r#"["pickel"]"#).is_err());
    }
}
