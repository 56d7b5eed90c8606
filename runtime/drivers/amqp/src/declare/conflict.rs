//! What the server says when something is there already and otherwise than we would have made it.
//!
//! `PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received none but current is the
//! value '10' of type 'signedint'` names one difference at a time.

use lapin::types::AMQPValue;

/// One difference, and what the server has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conflict {
    /// An argument, or `durable`, `auto_delete`, `exclusive`, `type`.
    pub(crate) name: String,
    pub(crate) current: Current,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Current {
    /// It is not set.
    Absent,
    Argument(AMQPValue),
    /// Of what is no argument: `true`, `topic`.
    Word(String),
}

impl Conflict {
    /// `None`: something else, or cut off where a short string ends.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (name, rest) = rest.split_once("' for ")?;
        let (_, current) = rest.rsplit_once("but current is ")?;
        let current = match current {
            "none" => Current::Absent,
            _ => match current.strip_prefix("the value '") {
                Some(current) => Current::Argument(argument(current)?),
                None => Current::Word(current.strip_prefix('\'')?.strip_suffix('\'')?.to_owned()),
            },
        };
        Some(Self { name: name.to_owned(), current })
    }
}

/// `10' of type 'signedint'`
fn argument(text: &str) -> Option<AMQPValue> {
    let (value, kind) = text.strip_suffix('\'')?.rsplit_once("' of type '")?;
    match kind {
        "longstr" => Some(AMQPValue::LongString(value.into())),
        "bool" => value.parse().ok().map(AMQPValue::Boolean),
        // The server compares integers by value, whatever their size.
        _ => value.parse().ok().map(AMQPValue::LongLongInt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_read() {
        let found = |name: &str, current| Some(Conflict { name: name.to_owned(), current });
        let place = "for queue 'q' in vhost '/': received";
        for (text, expected) in [
            ("NOT_FOUND - no queue 'q' in vhost '/'".to_owned(), None),
            (format!("inequivalent arg 'x-queue-type' {place} none but curr"), None),
            (format!("inequivalent arg 'x' {place} none but current is the value 'a' of type 'table'"), None),
            (
                format!(
                    "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' {place} none but current is the value 'quorum' of type 'longstr'"
                ),
                found("x-queue-type", Current::Argument(AMQPValue::LongString("quorum".into()))),
            ),
            (
                format!(
                    "inequivalent arg 'x-max-priority' {place} the value '5' of type 'byte' but current is the value '10' of type 'signedint'"
                ),
                found("x-max-priority", Current::Argument(AMQPValue::LongLongInt(10))),
            ),
            (
                format!(
                    "inequivalent arg 'x-max-priority' {place} the value '5' of type 'byte' but current is none"
                ),
                found("x-max-priority", Current::Absent),
            ),
            (
                format!("inequivalent arg 'durable' {place} 'true' but current is 'false'"),
                found("durable", Current::Word("false".to_owned())),
            ),
        ] {
            assert_eq!(Conflict::parse(&text), expected, "{text}");
        }
    }
}
