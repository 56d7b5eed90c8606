//! What several workers log, line by line, in one list that tests wait on.
//!
//! Any number of readers follow it, each at its own pace; nothing that was written is missed or taken away.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rwork_protocol::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

/// One line of one worker's log, or its end.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The worker's node name.
    pub node: Arc<str>,
    /// What it wrote.
    pub said: Said,
}

/// What a worker said.
#[derive(Clone, Debug)]
pub enum Said {
    /// An event of its log.
    Event(Value),
    /// A line that is no event: the last words of a panic, for example.
    Noise(String),
    /// Nothing more will come: the process has closed its log.
    End,
}

impl Entry {
    /// One field of the event, as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        match &self.said {
            Said::Event(event) => event.get(name)?.as_str(),
            Said::Noise(_) | Said::End => None,
        }
    }

    /// One field of the event, as a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        match &self.said {
            Said::Event(event) => event.get(name)?.as_u64(),
            Said::Noise(_) | Said::End => None,
        }
    }

    /// Whether it is the event of this text.
    pub fn says(&self, message: &str) -> bool {
        self.field("message") == Some(message)
    }

    /// Whether it is a warning, an error, or no event at all.
    pub fn is_alarming(&self) -> bool {
        matches!(self.said, Said::Noise(_)) || matches!(self.field("level"), Some("WARN" | "ERROR"))
    }

    /// When it was written, by the clock of the machine.
    pub fn at(&self) -> Option<Timestamp> {
        Timestamp::parse_iso(self.field("timestamp")?)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Said::Event(event) => write!(f, "{}: {event}", self.node),
            Said::Noise(line) => write!(f, "{}: {line}", self.node),
            Said::End => write!(f, "{}: (end of its log)", self.node),
        }
    }
}

/// The list. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Held for a push or a clone.
    entries: Mutex<Vec<Entry>>,
    /// How many there are: what readers wait on.
    written: watch::Sender<usize>,
}

impl Journal {
    /// Adds an entry and wakes the readers.
    pub fn write(&self, entry: Entry) {
        let mut entries = self.entries();
        entries.push(entry);
        let written = entries.len();
        drop(entries);
        self.0.written.send_replace(written);
    }

    /// A reader of everything, from the first entry on.
    pub fn reader(&self) -> Reader {
        Reader { written: self.0.written.subscribe(), journal: self.clone(), next: 0 }
    }

    /// A reader of what will be written from now on.
    pub fn reader_from_now(&self) -> Reader {
        Reader { next: self.entries().len(), ..self.reader() }
    }

    /// Everything so far.
    pub fn so_far(&self) -> Vec<Entry> {
        self.entries().clone()
    }

    fn get(&self, index: usize) -> Option<Entry> {
        self.entries().get(index).cloned()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the journal.
#[derive(Clone, Debug)]
pub struct Reader {
    journal: Journal,
    written: watch::Receiver<usize>,
    next: usize,
}

impl Reader {
    /// The next entry, as soon as there is one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Entry {
        loop {
            if let Some(entry) = self.try_next() {
                return entry;
            }
            // The journal holds the sender for as long as this reader holds the journal.
            let next = self.next;
            let _ = self.written.wait_for(|written| *written > next).await;
        }
    }

    /// The next entry, if there is one already.
    pub fn try_next(&mut self) -> Option<Entry> {
        let entry = self.journal.get(self.next)?;
        self.next += 1;
        Some(entry)
    }

    /// The next entry of which this is true.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn find(&mut self, wanted: impl Fn(&Entry) -> bool) -> Entry {
        loop {
            let entry = self.next().await;
            if wanted(&entry) {
                return entry;
            }
        }
    }
}
