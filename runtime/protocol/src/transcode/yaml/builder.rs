//! Events put together as JSON text, with what anchors stand for and what is merged.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;

use super::plain::Tag;
use super::scalar;
use crate::json::{self, DEPTH_MAX, Kind, Scanner, write_string};
use crate::output::Output;
use crate::transcode::{TranscodeError, write_key};

/// Most anchors in a document. PyYAML writes one for each object that occurs twice.
const ANCHORS_MAX: usize = 100_000;

/// Most entries that one mapping may take from others (`<<`), and have itself when it does. Producers never write merges;
/// people do, in small.
const MERGED_MAX: usize = 10_000;

/// What a collection becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Array,
    Object,
}

pub(super) struct Builder {
    output: Output,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    /// Anchors in the order in which they were complete.
    completed: Vec<usize>,
}

/// A collection that is being read.
struct Open {
    shape: Shape,
    anchor: usize,
    start: usize,
    length: usize,
    next: Next,
    /// Mappings and lists of mappings to be merged, as JSON.
    merges: Vec<Bytes>,
}

/// What the next node of a collection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Key,
    Value,
    /// What is to be merged; it is taken out of the output again.
    Merge {
        from: usize,
        completed: usize,
    },
}

/// What an anchor stands for.
enum Anchored {
    Scalar(Bytes),
    /// A collection within the output.
    Written(Range<usize>),
    /// A collection that was taken out of the output.
    Taken(Bytes),
}

impl Builder {
    pub(super) fn new(bytes_max: usize, guess: usize) -> Self {
        Self {
            output: Output::new(bytes_max, guess),
            open: Vec::new(),
            anchors: HashMap::new(),
            completed: Vec::new(),
        }
    }

    pub(super) fn finish(mut self) -> Result<Bytes, TranscodeError> {
        if self.output.len() == 0 {
            self.output.push(b"null")?;
        }
        Ok(self.output.into_bytes())
    }

    pub(super) fn scalar(
        &mut self,
        tag: Tag,
        text: &str,
        anchor: usize,
        at: usize,
    ) -> Result<(), TranscodeError> {
        let next = self.next();
        if next == Next::Key && tag == Tag::Merge {
            return self.begin_merge();
        }
        if matches!(next, Next::Merge { .. }) {
            return Err(scalar::wrong("a mapping or a list of mappings to be merged", text, at));
        }
        // `=` is an ordinary key, but no value (`flatten_mapping`).
        let tag = if next == Next::Key && tag == Tag::Value { Tag::Str } else { tag };
        if next == Next::Value {
            self.separate()?;
        }
        let start = self.output.len();
        scalar::write(&mut self.output, tag, text, at)?;
        if anchor != 0 || next == Next::Key {
            let written = Bytes::copy_from_slice(self.output.tail(start));
            if next == Next::Key {
                self.output.truncate(start);
                self.key(&written, at)?;
            }
            self.remember(anchor, Anchored::Scalar(written), at)?;
        }
        if next == Next::Value {
            self.value_done()?;
        }
        Ok(())
    }

    pub(super) fn open(&mut self, shape: Shape, anchor: usize, at: usize) -> Result<(), TranscodeError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(TranscodeError::TooDeep(at));
        }
        match self.next() {
            Next::Key => return Err(no_key("a collection", at)),
            Next::Value => self.separate()?,
            Next::Merge { .. } => {}
        }
        let start = self.output.len();
        self.output.push(if shape == Shape::Array { b"[" } else { b"{" })?;
        let next = if shape == Shape::Array { Next::Value } else { Next::Key };
        self.open.push(Open { shape, anchor, start, length: 0, next, merges: Vec::new() });
        Ok(())
    }

    pub(super) fn close(&mut self, at: usize) -> Result<(), TranscodeError> {
        let Some(closed) = self.open.pop() else { return Ok(()) };
        if !closed.merges.is_empty() {
            self.merge(&closed, at)?;
        }
        self.output.push(if closed.shape == Shape::Array { b"]" } else { b"}" })?;
        self.remember(closed.anchor, Anchored::Written(closed.start..self.output.len()), at)?;
        self.value_done()
    }

    pub(super) fn alias(&mut self, anchor: usize, at: usize) -> Result<(), TranscodeError> {
        let next = self.next();
        if next == Next::Value {
            self.separate()?;
        }
        match self.anchors.get(&anchor) {
            // An anchor is known once it is complete.
            None => return Err(scalar::wrong("an alias outside of what it stands for", "*", at)),
            Some(Anchored::Scalar(scalar)) => match next {
                Next::Key => {
                    let scalar = scalar.clone();
                    return self.key(&scalar, at);
                }
                Next::Merge { .. } => return Err(scalar::wrong("a mapping to be merged", "*", at)),
                Next::Value => self.output.push(scalar)?,
            },
            Some(_) if next == Next::Key => return Err(no_key("a collection", at)),
            Some(Anchored::Written(range)) => self.output.repeat(range.clone())?,
            Some(Anchored::Taken(json)) => self.output.push(json)?,
        }
        self.value_done()
    }

    /// The document itself is a value.
    fn next(&self) -> Next {
        self.open.last().map_or(Next::Value, |open| open.next)
    }

    /// A comma between the elements of an array; entries of objects get theirs before the key.
    fn separate(&mut self) -> Result<(), TranscodeError> {
        match self.open.last() {
            Some(open) if open.shape == Shape::Array && open.length > 0 => Ok(self.output.push(b", ")?),
            _ => Ok(()),
        }
    }

    fn key(&mut self, scalar: &[u8], at: usize) -> Result<(), TranscodeError> {
        if scalar.starts_with(b"{") {
            return Err(no_key("a date, a time or bytes", at));
        }
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if open.length > 0 {
            self.output.push(b", ")?;
        }
        write_key(&mut self.output, scalar)?;
        open.next = Next::Value;
        Ok(self.output.push(b": ")?)
    }

    fn value_done(&mut self) -> Result<(), TranscodeError> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        match open.next {
            Next::Merge { from, completed } => {
                open.next = Next::Key;
                return self.take_out(from, completed);
            }
            _ if open.shape == Shape::Object => open.next = Next::Key,
            _ => {}
        }
        open.length += 1;
        Ok(())
    }

    fn remember(&mut self, anchor: usize, what: Anchored, at: usize) -> Result<(), TranscodeError> {
        if anchor == 0 {
            return Ok(());
        }
        if self.completed.len() >= ANCHORS_MAX {
            return Err(scalar::wrong("at most 100,000 anchors", "&", at));
        }
        self.completed.push(anchor);
        self.anchors.insert(anchor, what);
        Ok(())
    }

    fn begin_merge(&mut self) -> Result<(), TranscodeError> {
        let (from, completed) = (self.output.len(), self.completed.len());
        if let Some(open) = self.open.last_mut() {
            open.next = Next::Merge { from, completed };
        }
        Ok(())
    }

    /// What is to be merged is in the output from `from` on: keeps it apart, and with it whatever was anchored within.
    fn take_out(&mut self, from: usize, completed: usize) -> Result<(), TranscodeError> {
        let end = self.output.len();
        for anchor in self.completed.iter().skip(completed) {
            let Some(Anchored::Written(range)) = self.anchors.get(anchor) else { continue };
            let range = range.clone();
            self.output.charge(range.len())?;
            let json = self.output.tail(range.start).get(..range.len()).unwrap_or_default();
            self.anchors.insert(*anchor, Anchored::Taken(Bytes::copy_from_slice(json)));
        }
        self.output.charge(end - from)?;
        let taken = Bytes::copy_from_slice(self.output.tail(from));
        self.output.truncate(from);
        if let Some(open) = self.open.last_mut() {
            open.merges.push(taken);
        }
        Ok(())
    }

    /// Adds what is merged to the object that is about to end. Its own entries win, then the later `<<`, and in a list the
    /// earlier mapping.
    fn merge(&mut self, closed: &Open, at: usize) -> Result<(), TranscodeError> {
        let own = self.output.tail(closed.start).len();
        self.output.charge(own)?;
        let mut whole = self.output.tail(closed.start).to_vec();
        whole.push(b'}');
        let mut seen = HashSet::new();
        let mut room = MERGED_MAX;
        for (key, _) in some_entries(&whole.into(), &mut room, at)? {
            seen.insert(key);
        }
        let mut length = closed.length;
        for source in closed.merges.iter().rev() {
            for mapping in mappings(source, &mut room, at)? {
                for (key, value) in some_entries(&mapping, &mut room, at)? {
                    if seen.contains(&key) {
                        continue;
                    }
                    let mut text = Vec::with_capacity(key.len() + 8);
                    text.extend_from_slice(if length > 0 { b", " } else { b"" });
                    write_string(&mut text, &key);
                    text.extend_from_slice(b": ");
                    self.output.push(&text)?;
                    self.output.push(&value)?;
                    seen.insert(key);
                    length += 1;
                }
            }
        }
        Ok(())
    }
}

/// One mapping, or those in a list, of which `room` are allowed.
fn mappings(source: &Bytes, room: &mut usize, at: usize) -> Result<Vec<Bytes>, TranscodeError> {
    if Kind::of(source) != Some(Kind::Array) {
        return Ok(vec![source.clone()]);
    }
    let mut scanner = Scanner::new(source).map_err(syntax)?;
    let mut found = Vec::new();
    let mut next = scanner.first_element().map_err(syntax)?;
    while let Some(kind) = next {
        if kind != Kind::Object {
            return Err(scalar::wrong("mappings to be merged", "<<", at));
        }
        take_one(room, at)?;
        found.push(scanner.raw().map_err(syntax)?);
        next = scanner.next_element().map_err(syntax)?;
    }
    Ok(found)
}

/// The entries of an object, of which `room` are allowed.
fn some_entries(object: &Bytes, room: &mut usize, at: usize) -> Result<Vec<(String, Bytes)>, TranscodeError> {
    let mut scanner = Scanner::new(object).map_err(syntax)?;
    let mut found = Vec::new();
    let mut key = scanner.first_key(str::to_owned).map_err(syntax)?;
    while let Some(name) = key {
        take_one(room, at)?;
        found.push((name, scanner.raw().map_err(syntax)?));
        key = scanner.next_key(str::to_owned).map_err(syntax)?;
    }
    json::keep_last(&mut found);
    Ok(found)
}

fn take_one(room: &mut usize, at: usize) -> Result<(), TranscodeError> {
    let error = || scalar::wrong("at most 10,000 entries in a mapping that merges others", "<<", at);
    *room = room.checked_sub(1).ok_or_else(error)?;
    Ok(())
}

fn syntax(error: json::Error) -> TranscodeError {
    TranscodeError::Syntax(error.to_string())
}

fn no_key(found: &str, offset: usize) -> TranscodeError {
    let expected = "a key that is text, a number or a word";
    TranscodeError::Value { expected, found: found.to_owned(), offset }
}
