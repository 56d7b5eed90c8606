//! Building arrays and objects out of values that are encoded already.

use bytes::Bytes;

use super::scan::{Error, Kind, entries, is_empty, keep_last};
use super::write::write_string;

/// An array of encoded values.
pub fn array_of<T: AsRef<[u8]>>(elements: &[T]) -> Bytes {
    let size = elements.iter().map(|element| element.as_ref().len() + 2).sum::<usize>();
    let mut out = Vec::with_capacity(size + 2);
    out.push(b'[');
    join(&mut out, elements);
    out.push(b']');
    out.into()
}

/// An object of keys and encoded values.
pub fn object_of<K: AsRef<str>, V: AsRef<[u8]>>(entries: &[(K, V)]) -> Bytes {
    let size =
        entries.iter().map(|(key, value)| key.as_ref().len() + value.as_ref().len() + 6).sum::<usize>();
    let mut out = Vec::with_capacity(size + 2);
    out.push(b'{');
    for (place, (key, value)) in entries.iter().enumerate() {
        if place > 0 {
            out.extend_from_slice(b", ");
        }
        write_string(&mut out, key.as_ref());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_ref());
    }
    out.push(b'}');
    out.into()
}

/// `elements`, then those of `array`: how Celery puts a parent's result before a signature's own arguments.
///
/// # Errors
/// When `array` does not look like an array; what is in it is copied unread.
pub fn prepend<T: AsRef<[u8]>>(array: &Bytes, elements: &[T]) -> Result<Bytes, Error> {
    concat(elements, array, true)
}

/// The elements of `array`, then `elements`.
///
/// # Errors
/// When `array` does not look like an array; what is in it is copied unread.
pub fn append<T: AsRef<[u8]>>(array: &Bytes, elements: &[T]) -> Result<Bytes, Error> {
    concat(elements, array, false)
}

fn concat<T: AsRef<[u8]>>(elements: &[T], array: &Bytes, before: bool) -> Result<Bytes, Error> {
    let inner = inside(array)?;
    if elements.is_empty() {
        return Ok(array.clone());
    }
    let size = elements.iter().map(|element| element.as_ref().len() + 2).sum::<usize>();
    let mut out = Vec::with_capacity(size + inner.len() + 4);
    let separator: &[u8] = if inner.is_empty() { b"" } else { b", " };
    out.push(b'[');
    if before {
        join(&mut out, elements);
        out.extend_from_slice(separator);
        out.extend_from_slice(inner);
    } else {
        out.extend_from_slice(inner);
        out.extend_from_slice(separator);
        join(&mut out, elements);
    }
    out.push(b']');
    Ok(out.into())
}

/// What stands between the brackets.
fn inside(array: &Bytes) -> Result<&[u8], Error> {
    let trimmed = array.trim_ascii();
    trimmed
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .map(<[u8]>::trim_ascii)
        .ok_or_else(|| Error::new(format!("expected an array, found {}", found(array)), 0))
}

/// The entries of `base` with those of `over` over them; `over` wins.
///
/// # Errors
/// When one of them is not an object.
pub fn merge(base: &Bytes, over: &Bytes) -> Result<Bytes, Error> {
    if is_object(over) && is_empty(over) {
        return Ok(base.clone());
    }
    if is_object(base) && is_empty(base) {
        return Ok(over.clone());
    }
    let mut all = entries(base)?;
    for (key, value) in entries(over)? {
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => all.push((key, value)),
        }
    }
    keep_last(&mut all);
    Ok(object_of(&all))
}

fn is_object(value: &[u8]) -> bool {
    Kind::of(value) == Some(Kind::Object)
}

fn found(value: &[u8]) -> String {
    Kind::of(value).map_or_else(|| "nothing".to_owned(), |kind| kind.to_string())
}

fn join<T: AsRef<[u8]>>(out: &mut Vec<u8>, elements: &[T]) {
    for (place, element) in elements.iter().enumerate() {
        if place > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(element.as_ref());
    }
}
