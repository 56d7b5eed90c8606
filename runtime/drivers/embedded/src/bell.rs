//! The doorbell: who commits rings, and everybody who waits in any process wakes and looks.
//!
//! Two files of one byte: one for messages, one for results. Ringing overwrites the byte; the kernel tells all who watch
//! the file. There is no register of waiters that a killed process could spoil, and an idle process costs nothing. A bell
//! that can't be heard (no watches left) makes waiting slower (a look each second), never wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use notify::event::{Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::files::{self, Files};

/// Rings both bells.
#[derive(Debug)]
pub(crate) struct Bells {
    messages: File,
    results: File,
}

/// What to ring after a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rings {
    /// Messages became deliverable, or are due at a new time.
    pub(crate) messages: bool,
    /// Results changed.
    pub(crate) results: bool,
}

impl Bells {
    pub(crate) fn open(files: &Files) -> io::Result<Self> {
        let bells = Self { messages: files::open(&files.bell)?, results: files::open(&files.done)? };
        // The byte must exist before the disk is full: overwriting it needs no space.
        bells.ring(Rings { messages: true, results: true });
        Ok(bells)
    }

    pub(crate) fn ring(&self, rings: Rings) {
        for (wanted, file) in [(rings.messages, &self.messages), (rings.results, &self.results)] {
            if wanted && let Err(error) = file.write_all_at(b".", 0) {
                tracing::debug!(%error, "failed to ring the embedded broker's bell");
            }
        }
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Ear {
    _watcher: RecommendedWatcher,
}

impl Ear {
    /// Calls `messages` and `results`, from a thread of its own, when the file was rung.
    pub(crate) fn open(
        files: &Files,
        messages: impl Fn() + Send + 'static,
        results: impl Fn() + Send + 'static,
    ) -> notify::Result<Self> {
        let done = files.done.file_name().map(ToOwned::to_owned);
        let heard = move |event: notify::Result<Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if !event.paths.is_empty() => {
                for path in &event.paths {
                    if path.file_name() == done.as_deref() { results() } else { messages() }
                }
            }
            // Events were lost: look at everything.
            _ => {
                messages();
                results();
            }
        };
        let mut watcher = notify::recommended_watcher(heard)?;
        let mut watch = |path: &Path| watcher.watch(path, RecursiveMode::NonRecursive);
        watch(&files.bell)?;
        watch(&files.done)?;
        Ok(Self { _watcher: watcher })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Only ends a test that would hang.
    const HANG: Duration = Duration::from_secs(60);

    fn listen(files: &Files) -> (Ear, mpsc::Receiver<&'static str>) {
        let (messages, heard) = mpsc::channel();
        let results = messages.clone();
        let ear = Ear::open(
            files,
            move || messages.send("messages").unwrap_or(()),
            move || results.send("results").unwrap_or(()),
        );
        (ear.unwrap(), heard)
    }

    #[test]
    fn everybody_hears_each_bell_and_only_that() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::beside(&folder.path().join("rwork.db"));
        let bells = Bells::open(&files).unwrap();
        let ears = [listen(&files), listen(&files)];
        for (rings, name) in [
            (Rings { messages: true, results: false }, "messages"),
            (Rings { messages: false, results: true }, "results"),
            (Rings { messages: true, results: false }, "messages"),
        ] {
            bells.ring(rings);
            for (_ear, heard) in &ears {
                assert_eq!(heard.recv_timeout(HANG).unwrap(), name);
            }
        }
    }

    #[test]
    fn no_bell_without_its_file() {
        let files = Files::beside(Path::new("no-such-folder/rwork.db"));
        assert!(Bells::open(&files).is_err() && Ear::open(&files, || {}, || {}).is_err());
    }
}
