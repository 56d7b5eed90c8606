//! Names that come from outside, checked once, when they are made.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest id or name, in bytes: AMQP's short string, which every broker can carry.
pub const NAME_BYTES_MAX: usize = 255;

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It is empty.
    #[error("expected {what} to be non-empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("expected {what} to be at most {NAME_BYTES_MAX} bytes, got {length}")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// It contains a control character.
    #[error("expected {what} to be free of control characters, got {name:?}")]
    Control {
        /// Which kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
}

fn check(what: &'static str, name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(InvalidName::TooLong { what, length: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidName::Control { what, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When it is empty, longer than 255 bytes or contains a control character.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                check($what, name.as_ref())?;
                Ok(Self(Arc::from(name.as_ref())))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// A task id: the same for every attempt and delivery (header `id`). Cheap to clone.
    TaskId,
    "a task id"
);
name!(
    /// A registered task name (header `task`). Cheap to clone.
    TaskName,
    "a task name"
);
name!(
    /// A queue's name. Cheap to clone.
    QueueName,
    "a queue name"
);

impl TaskName {
    /// A name of Celery's own, known to be one.
    pub(crate) fn of_static(name: &'static str) -> Self {
        Self(Arc::from(name))
    }
}

impl TaskId {
    /// A new id: version 7, so that ids made by rwork are ordered by time, as stores like them.
    pub fn generate() -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(Arc::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_named() {
        assert_eq!(TaskId::new(""), Err(InvalidName::Empty { what: "a task id" }));
        assert!(matches!(QueueName::new("a\nb"), Err(InvalidName::Control { .. })));
        assert!(matches!(TaskName::new("x".repeat(256)), Err(InvalidName::TooLong { length: 256, .. })));
    }

    #[test]
    fn generated_ids_are_ordered_and_distinct() {
        let ids: Vec<_> = (0..1000).map(|_| TaskId::generate()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
