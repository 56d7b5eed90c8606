//! Changing three values of an envelope and not one byte more.

use std::ops::Range;

use bytes::Bytes;
use jiter::{Jiter, JiterError, Peek};

use super::{Malformed, lenient};

/// Marks an envelope as kombu does when it restores one (`headers.redelivered`, `properties.delivery_info.redelivered`),
/// and notes that its next delivery is number `count`. A missing place is made where Python's `dict` would have it.
///
/// # Errors
/// When it is not a JSON object.
pub fn redelivered(envelope: &Bytes, count: u32) -> Result<Bytes, Malformed> {
    let count = count.to_string();
    let marks = Marks { redelivered: "true", count: &count, add: true };
    marks.apply(envelope)
}

/// Takes the marks back: as if it had never been delivered.
///
/// # Errors
/// When it is not a JSON object.
pub fn renewed(envelope: &Bytes) -> Result<Bytes, Malformed> {
    let marks = Marks { redelivered: "false", count: "1", add: false };
    marks.apply(envelope)
}

struct Marks<'a> {
    redelivered: &'a str,
    count: &'a str,
    /// Whether what is missing is added.
    add: bool,
}

/// Bytes to be replaced, in the order of their places.
type Edits = Vec<(Range<usize>, String)>;

impl Marks<'_> {
    fn apply(&self, envelope: &Bytes) -> Result<Bytes, Malformed> {
        std::str::from_utf8(envelope).map_err(|_| Malformed::new("bytes that are not UTF-8"))?;
        let mut edits = lenient(envelope, |json| self.edits(json))
            .map_err(|error| Malformed::new(error.error_type.to_string()))?;
        edits.sort_by_key(|(range, _)| range.start);
        let growth: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(envelope.len() + growth);
        let mut from = 0;
        for (range, text) in &edits {
            out.extend_from_slice(envelope.get(from..range.start).unwrap_or_default());
            out.extend_from_slice(text.as_bytes());
            from = range.end;
        }
        out.extend_from_slice(envelope.get(from..).unwrap_or_default());
        Ok(out.into())
    }

    fn edits(&self, source: &[u8]) -> Result<Edits, JiterError> {
        let mut edits = Edits::new();
        let whole = Object::read(source, 0..source.len(), ["headers", "properties"])?;
        let [headers, properties] = &whole.values;
        if let Some(headers) = headers.as_ref().filter(|headers| headers.is_object) {
            let headers = Object::read(source, headers.range.clone(), ["redelivered"])?;
            self.set(&headers, 0, "redelivered", self.redelivered, &mut edits);
        }
        let info = format!("{{\"redelivered\": {}, \"delivery_count\": {}}}", self.redelivered, self.count);
        match properties {
            Some(properties) if properties.is_object => {
                let properties = Object::read(source, properties.range.clone(), ["delivery_info"])?;
                self.edit_properties(source, &properties, &info, &mut edits)?;
            }
            _ => self.set(&whole, 1, "properties", &format!("{{\"delivery_info\": {info}}}"), &mut edits),
        }
        Ok(edits)
    }

    fn edit_properties(
        &self,
        source: &[u8],
        properties: &Object<1>,
        info: &str,
        edits: &mut Edits,
    ) -> Result<(), JiterError> {
        match &properties.values {
            [Some(found)] if found.is_object => {
                let found = Object::read(source, found.range.clone(), ["redelivered", "delivery_count"])?;
                self.set(&found, 0, "redelivered", self.redelivered, edits);
                self.set(&found, 1, "delivery_count", self.count, edits);
            }
            [Some(found)] => edits.push((found.range.clone(), info.to_owned())),
            // At the front, since the delivery tag is looked for at the end.
            [None] if self.add => {
                let separator = if properties.is_empty { "" } else { ", " };
                let first = properties.open + 1;
                edits.push((first..first, format!("\"delivery_info\": {info}{separator}")));
            }
            [None] => {}
        }
        Ok(())
    }

    /// Replaces the value, or adds it at the end of the object.
    fn set<const N: usize>(&self, object: &Object<N>, nth: usize, key: &str, value: &str, edits: &mut Edits) {
        match object.values.get(nth) {
            Some(Some(found)) => edits.push((found.range.clone(), value.to_owned())),
            _ if self.add => {
                let already = edits.iter().any(|(range, _)| range.start == object.close && range.is_empty());
                let separator = if object.is_empty && !already { "" } else { ", " };
                edits.push((object.close..object.close, format!("{separator}\"{key}\": {value}")));
            }
            _ => {}
        }
    }
}

/// Where the braces of an object are, and where the values of some keys. Of a key that occurs twice the last one counts.
struct Object<const N: usize> {
    values: [Option<Place>; N],
    open: usize,
    close: usize,
    is_empty: bool,
}

#[derive(Clone)]
struct Place {
    range: Range<usize>,
    is_object: bool,
}

impl<const N: usize> Object<N> {
    fn read(source: &[u8], within: Range<usize>, keys: [&str; N]) -> Result<Self, JiterError> {
        let text = source.get(within.clone()).unwrap_or_default();
        let offset = within.start;
        let mut json = Jiter::new(text).with_allow_inf_nan();
        let mut values = [const { None }; N];
        let _ = json.peek()?;
        let open = offset + json.current_index();
        let mut key = json.next_object()?;
        let is_empty = key.is_none();
        while let Some(name) = key {
            let nth = keys.iter().position(|key| *key == name);
            let peek = json.peek()?;
            let start = json.current_index();
            json.known_skip(peek)?;
            if let Some(value) = nth.and_then(|nth| values.get_mut(nth)) {
                let range = offset + start..offset + json.current_index();
                *value = Some(Place { range, is_object: peek == Peek::Object });
            }
            key = json.next_key()?;
        }
        // The brace was the last byte that was read.
        let close = (offset + json.current_index()).saturating_sub(1);
        json.finish()?;
        Ok(Self { values, open, close, is_empty })
    }
}
