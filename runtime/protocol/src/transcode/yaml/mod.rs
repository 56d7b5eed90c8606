//! YAML as PyYAML's safe loader reads it: version 1.1, the loader's own rules for what an unquoted scalar is, one document.
//!
//! An alias repeats the JSON of what it stands for, and counts in full each time: a small body can't become a large one.
//! Tags of a program's own, sets and ordered maps are refused: they build what JSON has no form for.

mod builder;
mod integer;
mod plain;
mod scalar;
mod time;

use bytes::Bytes;
use granit_parser::{Event, Parser, ScalarStyle, Tag as Named};

use self::builder::Builder;
use self::plain::Tag;
use super::TranscodeError;

/// JSON takes about so many times the room.
const USUAL_RATIO: usize = 2;

/// One document as JSON of at most `bytes_max` bytes; an empty one is `null`.
///
/// Keys that are not text become text as Python's `json` makes them: `null`, `true`, a number's digits.
pub(crate) fn to_json(source: &[u8], bytes_max: usize) -> Result<Bytes, TranscodeError> {
    let text = std::str::from_utf8(source).map_err(|error| TranscodeError::Value {
        expected: "text in UTF-8",
        found: "other bytes".to_owned(),
        offset: error.valid_up_to(),
    })?;
    let mut builder = Builder::new(bytes_max, text.len().saturating_mul(USUAL_RATIO));
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| TranscodeError::Syntax(error.to_string()))?;
        let at = span.start.byte_offset().unwrap_or_default();
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(TranscodeError::Trailing(at));
                }
            }
            Event::Scalar(text, style, anchor, named) => {
                let tag = tag_of(&text, style, named.as_deref(), at)?;
                builder.scalar(tag, &text, anchor, at)?;
            }
            Event::SequenceStart(_, anchor, named) => {
                expect_collection(named.as_deref(), "seq", at)?;
                builder.open(builder::Shape::Array, anchor, at)?;
            }
            Event::MappingStart(_, anchor, named) => {
                expect_collection(named.as_deref(), "map", at)?;
                builder.open(builder::Shape::Object, anchor, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(at)?,
            Event::Alias(anchor) => builder.alias(anchor, at)?,
            _ => {}
        }
    }
    builder.finish()
}

/// PyYAML's own tags.
const NAMESPACE: &str = "tag:yaml.org,2002:";

fn tag_of(text: &str, style: ScalarStyle, named: Option<&Named>, at: usize) -> Result<Tag, TranscodeError> {
    let Some(named) = named else {
        return Ok(if style == ScalarStyle::Plain { plain::resolve(text) } else { Tag::Str });
    };
    if is_unspecific(named) {
        return Ok(plain::resolve(text));
    }
    Ok(match named.suffix_in_namespace(NAMESPACE).as_deref() {
        Some("str") => Tag::Str,
        Some("int") => Tag::Int,
        Some("float") => Tag::Float,
        Some("bool") => Tag::Bool,
        Some("null") => Tag::Null,
        Some("binary") => Tag::Binary,
        Some("timestamp") => Tag::Timestamp,
        Some("merge") => Tag::Merge,
        _ => return Err(refused(named, at)),
    })
}

/// `!` alone.
fn is_unspecific(named: &Named) -> bool {
    matches!(named.parts(), ("", "!") | ("!", ""))
}

fn expect_collection(named: Option<&Named>, expected: &str, at: usize) -> Result<(), TranscodeError> {
    match named {
        Some(named)
            if !is_unspecific(named) && named.suffix_in_namespace(NAMESPACE).as_deref() != Some(expected) =>
        {
            Err(refused(named, at))
        }
        _ => Ok(()),
    }
}

fn refused(named: &Named, at: usize) -> TranscodeError {
    scalar::wrong("one of YAML's safe tags that JSON has a form for", &named.original(), at)
}
