//! Wakes the reload loop when something in the plugin directory moves.
//!
//! Events are only a reason to look: what they say is not believed, since they may be lost, doubled or late. Without a
//! working watcher the directory is looked through every two seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::stamp::Stamp;

/// How often the directory is looked through when no events can be had.
const POLL_EVERY: Duration = Duration::from_secs(2);

const NO_EVENTS: &str = "no file events; plugins are looked for every two seconds";

/// Watches the plugin directory and its folders, each on its own: what cargo writes deeper down wakes nobody.
#[derive(Debug)]
pub(crate) struct Watcher {
    watcher: Option<RecommendedWatcher>,
    /// Each folder with its device and inode: a folder that was replaced has to be watched anew.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    wake: Arc<Notify>,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let wake = Arc::new(Notify::new());
        let waker = wake.clone();
        let created = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                waker.notify_one();
            }
        });
        let watcher = created.inspect_err(|error| tracing::warn!(%error, "{NO_EVENTS}")).ok();
        Self { watcher, folders: BTreeMap::new(), wake }
    }

    /// Watches these folders and no others; true: one is new, and what happened in it so far was not seen.
    pub(crate) fn follow(&mut self, folders: &[PathBuf]) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let gone: Vec<PathBuf> =
            self.folders.keys().filter(|path| !folders.contains(path)).cloned().collect();
        for path in gone {
            // The system has forgotten it already when the folder itself is gone.
            let _ = watcher.unwatch(&path);
            self.folders.remove(&path);
        }
        let mut new = false;
        for path in folders {
            let Ok(identity) = identity(path) else { continue };
            if self.folders.get(path) == Some(&identity) {
                continue;
            }
            let _ = watcher.unwatch(path);
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(path.clone(), identity);
                    new = true;
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "{NO_EVENTS}");
                    self.watcher = None;
                    return false;
                }
            }
        }
        new
    }

    /// How long to wait for an event before looking anyway.
    pub(crate) fn patience(&self, rescan: Duration) -> Duration {
        if self.watcher.is_some() { rescan } else { rescan.min(POLL_EVERY) }
    }

    /// Resolves after a change, once for any number of them.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }
}

/// Reading a plugin is an event too, and must not lead to reading it again.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    Stamp::read(path).map(|stamp| stamp.identity())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_no_change() {
        use notify::event::{CreateKind, DataChange, ModifyKind};
        for quiet in
            [AccessKind::Read, AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)]
        {
            assert!(!is_change(EventKind::Access(quiet)), "{quiet:?}");
        }
        assert!(is_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(EventKind::Modify(ModifyKind::Data(DataChange::Any))));
        assert!(is_change(EventKind::Create(CreateKind::File)));
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_anew() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        let mut watcher = Watcher::new();
        let folders = [folder.clone()];
        assert!(watcher.follow(&folders));
        assert!(!watcher.follow(&folders));
        // Kept aside, so that its inode is not given to the new one.
        std::fs::rename(&folder, root.path().join("b")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert!(watcher.follow(&folders));
        while tokio::time::timeout(Duration::ZERO, watcher.changed()).await.is_ok() {}
        std::fs::write(folder.join("x.wasm"), "").unwrap();
        watcher.changed().await;
    }
}
