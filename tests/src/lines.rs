//! What a process writes, line by line, to be waited on by any number of readers on any runtime.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The lines so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Held for a push or a look.
    lines: Mutex<Vec<String>>,
    /// How many lines there are, and how many pipes more may come from. One that is started again may be read before its
    /// former self is known to have ended.
    written: watch::Sender<(usize, usize)>,
}

impl Lines {
    /// Reads a pipe to its end, on a thread of its own. Lines of several pipes may go into one list.
    pub fn follow(&self, pipe: impl Read + Send + 'static) {
        let lines = self.clone();
        lines.0.written.send_modify(|(_, open)| *open += 1);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            lines.0.written.send_modify(|(_, open)| *open -= 1);
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.lines();
        lines.push(line);
        let count = lines.len();
        drop(lines);
        // Of two pipes the later count may come first.
        self.0.written.send_modify(|(written, _)| *written = count.max(*written));
    }

    /// How many there are: the place from which to wait for what comes next.
    pub fn count(&self) -> usize {
        self.lines().len()
    }

    /// Everything so far, as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits for a line of which this is true, among those from `first` on (see [`Lines::count`]).
    ///
    /// # Errors
    /// When the process has ended without it; its last words are in the error.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn find(&self, first: usize, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut written = self.0.written.subscribe();
        let mut next = first;
        loop {
            let (count, open) = *written.borrow_and_update();
            if let Some(line) =
                self.lines().get(next..count).and_then(|new| new.iter().find(|line| wanted(line)))
            {
                return Ok(line.clone());
            }
            next = next.max(count);
            anyhow::ensure!(open > 0, "it ended without saying what was expected; it said:\n{}", self.text());
            // This list holds the sender.
            let _ = written.changed().await;
        }
    }

    /// [`Lines::find`] for code that is not async.
    ///
    /// # Errors
    /// As [`Lines::find`].
    pub fn find_blocking(&self, first: usize, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        // `block_on` of futures-util would need its executor; this one needs no runtime at all.
        // Within a runtime, tokio would make a future that is polled often give way to others, by the runtime's own hand,
        // which is this thread.
        let mut found = std::pin::pin!(tokio::task::unconstrained(self.find(first, wanted)));
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        loop {
            match found.as_mut().poll(&mut context) {
                std::task::Poll::Ready(line) => return line,
                std::task::Poll::Pending => std::thread::park(),
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a thread that waits for a future.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_found_and_what_was_not_is_an_error() {
        let lines = Lines::default();
        lines.follow(&b"one\ntwo\nthree"[..]);
        assert_eq!(lines.find_blocking(0, |line| line.starts_with('t')).unwrap(), "two");
        assert_eq!(lines.find_blocking(2, |line| line.starts_with('t')).unwrap(), "three");
        let error = lines.find_blocking(0, |line| line == "four").unwrap_err();
        assert!(error.to_string().ends_with("one\ntwo\nthree"), "{error}");
    }
}
