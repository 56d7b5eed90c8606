//! What a guest says: log lines, standard output and standard error, under one byte budget.
//!
//! Nothing is allocated before the first byte. Over the budget, one line says so and the rest is counted and dropped:
//! a chatty task still succeeds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::control::Control;
use crate::host::{Host, Level, LogSource};
use crate::text::{neutralise, truncate};

/// A longer line is handed on in pieces: what a guest writes without a newline may not pile up in the host.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Enough for a traceback of thirty frames.
const STDERR_TAIL_BYTES: usize = 8 << 10;
/// Fields of one log line; more is data, not a log.
const FIELDS_MAX: usize = 32;
/// What a guest may write at once; the host copies so much per call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The output of one invocation, shared by the store and the guest's open streams.
pub(crate) struct Output {
    host: Arc<dyn Host>,
    control: Arc<Control>,
    budget: usize,
    /// Locked by one guest, which runs on one thread at a time: never contended.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Output {
    pub(crate) fn new(host: Arc<dyn Host>, control: Arc<Control>, budget: usize) -> Self {
        Self { host, control, budget, state: Mutex::default() }
    }

    /// A line of `rwork:task/log`; its newlines make it several.
    pub(crate) fn emit(&self, level: Level, message: &str, fields: &[(String, String)]) {
        if !self.host.log_enabled(level) {
            return;
        }
        let fields: Vec<_> = fields
            .iter()
            .take(FIELDS_MAX)
            .map(|(key, value)| (neutralise(key).into_owned(), neutralise(value).into_owned()))
            .collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fields = fields.as_slice();
        for line in message.lines() {
            self.line(&mut state, LogSource::Log, level, line, fields);
            fields = &[];
        }
        if message.is_empty() {
            self.line(&mut state, LogSource::Log, level, message, fields);
        }
    }

    /// The end of what the guest wrote to stderr.
    pub(crate) fn stderr_tail(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = state.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).lines().map(neutralise).collect::<Vec<_>>().join("\n")
    }

    fn write(&self, source: LogSource, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if source == LogSource::Stderr {
            state.keep_tail(bytes);
        }
        if state.cut {
            self.control.note_log_dropped(bytes.len());
            return;
        }
        let mut pending = std::mem::take(state.pending(source));
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                pending.extend_from_slice(part);
                if pending.ends_with(b"\n") || pending.len() >= LINE_BYTES_MAX {
                    self.flush(&mut state, source, &mut pending);
                }
            }
        }
        *state.pending(source) = pending;
    }

    fn flush(&self, state: &mut State, source: LogSource, pending: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(pending);
        let line = text.trim_end_matches(['\n', '\r']);
        self.line(state, source, level_of(source), line, &[]);
        drop(text);
        pending.clear();
    }

    /// One line, within the budget.
    fn line(
        &self,
        state: &mut State,
        source: LogSource,
        level: Level,
        line: &str,
        fields: &[(String, String)],
    ) {
        let fields_len: usize = fields.iter().map(|(key, value)| key.len() + value.len()).sum();
        // An empty line costs its newline, so that it cannot be written for ever.
        let len = line.len() + fields_len + 1;
        if state.cut {
            return self.control.note_log_dropped(len);
        }
        let left = self.budget.saturating_sub(state.used);
        if len <= left {
            state.used += len;
            return self.host.log(source, level, &neutralise(line), fields);
        }
        state.cut = true;
        let kept = truncate(line, left);
        self.control.note_log_dropped(len - kept.len());
        if !kept.is_empty() {
            self.host.log(source, level, &neutralise(kept), &[]);
        }
        let notice = format!("output cut here: this invocation wrote more than its {} bytes", self.budget);
        self.host.log(source, Level::Warn, &notice, &[]);
    }
}

impl Drop for Output {
    /// Last words without a newline are words too.
    fn drop(&mut self) {
        let mut state = std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        for source in [LogSource::Stdout, LogSource::Stderr] {
            let mut pending = std::mem::take(state.pending(source));
            if !pending.is_empty() {
                self.flush(&mut state, source, &mut pending);
            }
        }
    }
}

impl State {
    fn pending(&mut self, source: LogSource) -> &mut Vec<u8> {
        if source == LogSource::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(STDERR_TAIL_BYTES)..).unwrap_or_default();
        let surplus = (self.tail.len() + kept.len()).saturating_sub(STDERR_TAIL_BYTES);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend(kept);
    }
}

fn level_of(source: LogSource) -> Level {
    if source == LogSource::Stderr { Level::Warn } else { Level::Info }
}

/// The guest's end of standard output or standard error.
pub(crate) struct OutputWriter {
    output: Arc<Output>,
    source: LogSource,
}

impl OutputWriter {
    pub(crate) fn new(output: Arc<Output>, source: LogSource) -> Self {
        Self { output, source }
    }
}

#[async_trait]
impl Pollable for OutputWriter {
    async fn ready(&mut self) {}
}

impl OutputStream for OutputWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.source, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_host::Recorder;
    use crate::{Limits, Stop};

    fn output(budget: usize) -> (Output, Arc<Recorder>, Arc<Control>) {
        let recorder = Arc::new(Recorder::default());
        let control = Arc::new(Control::start(&Limits::default(), Stop::default()));
        (Output::new(recorder.clone(), control.clone(), budget), recorder, control)
    }

    #[test]
    fn lines_are_split_and_the_last_one_needs_no_newline() {
        let (output, recorder, _) = output(1 << 10);
        output.write(LogSource::Stdout, b"one\ntw");
        output.write(LogSource::Stderr, b"err\r\n");
        output.write(LogSource::Stdout, b"o\nthree");
        drop(output);
        assert_eq!(recorder.lines(), ["Stdout one", "Stderr err", "Stdout two", "Stdout three"]);
    }

    #[test]
    fn over_the_budget_one_line_says_so_and_the_rest_is_counted() {
        let (output, recorder, control) = output(10);
        output.emit(Level::Info, "12345", &[]);
        output.emit(Level::Info, "123456", &[]);
        output.write(LogSource::Stdout, &[b'x'; 1_000]);
        drop(output);
        let cut = "Log output cut here: this invocation wrote more than its 10 bytes";
        assert_eq!(recorder.lines(), ["Log 12345", "Log 1234", cut]);
        assert_eq!(control.log_dropped(), 3 + 1_000);
    }

    #[test]
    fn a_line_without_end_is_handed_on_in_pieces() {
        let (output, recorder, _) = output(1 << 20);
        output.write(LogSource::Stdout, &vec![b'x'; 3 * LINE_BYTES_MAX]);
        assert_eq!(recorder.lines().len(), 3);
    }

    #[test]
    fn control_characters_are_written_out_and_newlines_split() {
        let (output, recorder, _) = output(1 << 10);
        output.emit(Level::Error, "\u{1b}[2Jgone\nfake line", &[("k\u{7}".to_owned(), "v\n".to_owned())]);
        assert_eq!(recorder.lines(), ["Log \\u{1b}[2Jgone k\\u{7}=v\\u{a}", "Log fake line"]);
    }

    #[test]
    fn the_end_of_stderr_is_kept() {
        let (output, _, _) = output(16);
        output.write(LogSource::Stderr, &[b'a'; 10_000]);
        output.write(LogSource::Stderr, b"the end");
        let tail = output.stderr_tail();
        assert_eq!(tail.len(), STDERR_TAIL_BYTES);
        assert!(tail.ends_with("athe end"));
    }
}
