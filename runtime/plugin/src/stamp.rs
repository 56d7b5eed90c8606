//! When a file was last written, and whether it has been quiet since.
//!
//! A file is read only when size and times have not changed for a while: either its modification time is old enough, or
//! it was watched for that long. The second rule covers clocks that disagree, as on network file systems.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::discovery::Found;

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) bytes: u64,
    modified: Option<SystemTime>,
    device: u64,
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// Device and inode: another file by the same name has others.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// The stamps of a component and its manifest; none: not there (any more).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamps {
    wasm: Option<Stamp>,
    manifest: Option<Stamp>,
}

impl Stamps {
    pub(crate) fn read(found: &Found) -> Self {
        Self {
            wasm: Stamp::read(&found.wasm).ok(),
            manifest: found.manifest.as_deref().and_then(|path| Stamp::read(path).ok()),
        }
    }

    /// Time since either was written; nothing when a clock disagrees.
    fn age(&self, now: SystemTime) -> Duration {
        let age = |stamp: &Stamp| now.duration_since(stamp.modified?).ok();
        [&self.wasm, &self.manifest]
            .into_iter()
            .flatten()
            .map(|stamp| age(stamp).unwrap_or_default())
            .min()
            .unwrap_or_default()
    }
}

/// How long one file has looked the same.
#[derive(Clone, Debug)]
pub(crate) struct Quiet {
    stamps: Stamps,
    since: Instant,
}

impl Quiet {
    pub(crate) fn new(stamps: Stamps, now: Instant) -> Self {
        Self { stamps, since: now }
    }

    /// Takes a new look; true: something changed, and the quiet time begins again.
    pub(crate) fn observe(&mut self, stamps: Stamps, now: Instant) -> bool {
        let changed = stamps != self.stamps;
        if changed {
            *self = Self::new(stamps, now);
        }
        changed
    }

    /// How much longer it has to stay as it is before it counts as quiet; zero: it does.
    pub(crate) fn missing(&self, wanted: Duration, now: Instant, wall: SystemTime) -> Duration {
        wanted.saturating_sub(now.saturating_duration_since(self.since).max(self.stamps.age(wall)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Duration = Duration::from_millis(100);

    fn stamps(bytes: u64, modified: SystemTime) -> Stamps {
        Stamps { wasm: Some(Stamp { bytes, modified: Some(modified), device: 1, inode: 1 }), manifest: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_growing_file_is_never_quiet() {
        let wall = SystemTime::UNIX_EPOCH;
        let mut quiet = Quiet::new(stamps(0, wall), Instant::now());
        for bytes in 1..20 {
            tokio::time::advance(WANTED / 2).await;
            assert!(quiet.observe(stamps(bytes, wall), Instant::now()));
            assert_eq!(quiet.missing(WANTED, Instant::now(), wall), WANTED);
        }
        tokio::time::advance(WANTED / 2).await;
        assert!(!quiet.observe(stamps(19, wall), Instant::now()));
        assert_eq!(quiet.missing(WANTED, Instant::now(), wall), WANTED / 2);
        tokio::time::advance(WANTED / 2).await;
        assert_eq!(quiet.missing(WANTED, Instant::now(), wall), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_file_is_quiet_at_once() {
        let written = SystemTime::UNIX_EPOCH;
        let quiet = Quiet::new(stamps(1, written), Instant::now());
        assert_eq!(quiet.missing(WANTED, Instant::now(), written + WANTED), Duration::ZERO);
        assert_eq!(quiet.missing(WANTED, Instant::now(), written + WANTED / 4), WANTED * 3 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_in_the_future_is_waited_for_by_watching() {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(3_600);
        let quiet = Quiet::new(stamps(1, written), Instant::now());
        assert_eq!(quiet.missing(WANTED, Instant::now(), SystemTime::UNIX_EPOCH), WANTED);
        tokio::time::advance(WANTED).await;
        assert_eq!(quiet.missing(WANTED, Instant::now(), SystemTime::UNIX_EPOCH), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_younger_of_component_and_manifest_counts() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let mut both = stamps(1, SystemTime::UNIX_EPOCH);
        both.manifest = Some(Stamp { bytes: 1, modified: Some(now), device: 1, inode: 2 });
        assert_eq!(Quiet::new(both, Instant::now()).missing(WANTED, Instant::now(), now), WANTED);
    }
}
