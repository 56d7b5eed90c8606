//! Compiled components on disk, so that a plugin that did not change is mapped and not compiled.
//!
//! The directory holds native code that is run without further checks, so it is private to the user, and what is in it
//! is believed only with the right name, owner and checksum. A file's name is its key and its checksum:
//! `DIGEST-COMPATIBILITY-ARCH-CHECKSUM.cwasm`. Files are put in place by a rename and never written again, so several
//! workers may race for one key, and a file that is mapped may be removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// Most bytes of compiled code that are kept; the oldest go first. Room for a dozen Python plugins or thousands of Rust.
pub const CACHE_BYTES_MAX: u64 = 2 << 30;

/// Most files that are kept: a lookup reads the names of all.
pub const CACHE_FILES_MAX: usize = 2_000;

/// A file that is used is marked as used at most once in this time, so that a start doesn't write to every file.
const TOUCH_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// A temporary file this old was left by a worker that died while writing.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3_600);

const SUFFIX: &str = ".cwasm";

/// Below the directory that the user names, which may hold other things and be open to others.
const FOLDER: &str = "code";

/// What compiled code depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// `digest` as in [`crate::read::Source`]; `compatibility` stands for the engine's version and settings.
    pub(crate) fn new(digest: &str, compatibility: u64) -> Self {
        let digest = digest.trim_start_matches("sha256:");
        Self(format!("{digest}-{compatibility:016x}-{}-", std::env::consts::ARCH))
    }
}

/// The directory, checked when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Makes `directory/code` where it is missing, and checks that nobody else can write there. Blocking.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Cache { path, source }
        };
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let folder = directory.join(FOLDER);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&folder)(error)),
            _ => {}
        }
        let metadata = fs::symlink_metadata(&folder).map_err(failed(&folder))?;
        match not_private(&metadata, rustix::process::geteuid().as_raw()) {
            Some(found) => Err(Error::CacheNotPrivate { path: folder, found }),
            None => Ok(Self { folder }),
        }
    }

    /// The file for a key, when there is one and it is whole. Blocking.
    pub(crate) fn find(&self, key: &Key) -> Option<PathBuf> {
        let matching = self.files().ok()?.into_iter().filter(|path| name(path).starts_with(&key.0));
        for path in matching {
            match fs::read(&path) {
                Ok(bytes) if name(&path) == file_name(key, &bytes) => {
                    touch(&path);
                    return Some(path);
                }
                Ok(_) => self.discard(&path, "its checksum is wrong"),
                Err(_) => {}
            }
        }
        None
    }

    /// Keeps compiled code and returns its file. Blocking.
    pub(crate) fn store(&self, key: &Key, code: &[u8]) -> Result<PathBuf, Error> {
        let path = self.folder.join(file_name(key, code));
        let temporary = self.folder.join(format!(".{:016x}.tmp", fastrand::u64(..)));
        let written = write(&temporary, code).and_then(|()| fs::rename(&temporary, &path));
        if let Err(source) = written {
            let _ = fs::remove_file(&temporary);
            return Err(Error::Cache { path, source });
        }
        self.evict(&path, CACHE_BYTES_MAX, CACHE_FILES_MAX);
        Ok(path)
    }

    /// Removes a file that is not what it should be.
    pub(crate) fn discard(&self, path: &Path, reason: &str) {
        tracing::warn!(path = %path.display(), reason, "compiled code discarded from the cache; compiling again");
        let _ = fs::remove_file(path);
    }

    /// Removes the files that were used least recently, until the rest is within bounds; `keep` stays.
    fn evict(&self, keep: &Path, bytes_max: u64, files_max: usize) {
        let Ok(files) = self.files() else { return };
        let mut files: Vec<_> = files
            .into_iter()
            .filter_map(|path| {
                let metadata = fs::metadata(&path).ok()?;
                Some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = files.len();
        for (_, size, path) in files {
            if bytes <= bytes_max && count <= files_max {
                break;
            }
            if path != keep && fs::remove_file(&path).is_ok() {
                bytes = bytes.saturating_sub(size);
                count -= 1;
            }
        }
    }

    /// Every file of compiled code; old temporary files are removed on the way.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if name(&path).ends_with(SUFFIX) {
                files.push(path);
            } else if name(&path).ends_with(".tmp") && age(&path) > TEMPORARY_AGE_MAX {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(files)
    }
}

/// What is wrong with a cache directory, in words.
fn not_private(metadata: &fs::Metadata, user: u32) -> Option<String> {
    if metadata.is_symlink() {
        Some("a symbolic link".to_owned())
    } else if !metadata.is_dir() {
        Some("a file".to_owned())
    } else if metadata.uid() != user {
        Some(format!("a directory of user {}", metadata.uid()))
    } else if metadata.mode() & 0o077 != 0 {
        Some(format!("mode {:04o}", metadata.mode() & 0o7777))
    } else {
        None
    }
}

fn file_name(key: &Key, code: &[u8]) -> String {
    format!("{}{}{SUFFIX}", key.0, blake3::hash(code).to_hex())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(code)?;
    file.sync_all()
}

fn age(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok()).unwrap_or_default()
}

/// The modification time is the time of last use. It is a hint for eviction, so failing is no error.
fn touch(path: &Path) {
    if age(path) > TOUCH_EVERY {
        let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(n: u64) -> Key {
        Key::new("sha256:00ff", n)
    }

    #[test]
    fn what_is_stored_is_found_by_its_key_only() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        assert_eq!(cache.find(&key(1)), None);
        let path = cache.store(&key(1), b"code").unwrap();
        assert_eq!(cache.find(&key(1)), Some(path.clone()));
        assert_eq!(cache.find(&key(2)), None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&cache.folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn damaged_code_is_removed_and_not_found() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        for damaged in [&b"cod"[..], b"code and more", b"c0de", b""] {
            let path = cache.store(&key(1), b"code").unwrap();
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.find(&key(1)), None, "{damaged:?}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn two_workers_may_store_the_same_key() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let code: Vec<u8> = (0..1_000_000).map(|n| n as u8).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        cache.store(&key(1), &code).unwrap();
                        assert!(cache.find(&key(1)).is_some());
                    }
                });
            }
        });
        assert_eq!(cache.files().unwrap().len(), 1);
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Cache::open(root.path()).unwrap_err();
        assert!(error.to_string().ends_with("found mode 0755"), "{error}");
        assert!(error.hint().is_some());
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink("/tmp", &folder).unwrap();
        assert!(Cache::open(root.path()).unwrap_err().to_string().ends_with("found a symbolic link"));
        fs::remove_file(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        assert!(Cache::open(root.path()).unwrap_err().to_string().ends_with("found a file"));
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let metadata = fs::symlink_metadata(&cache.folder).unwrap();
        assert_eq!(not_private(&metadata, metadata.uid()), None);
        assert!(not_private(&metadata, metadata.uid() + 1).is_some());
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let paths: Vec<_> = (0..5).map(|n| cache.store(&key(n), &[0; 100]).unwrap()).collect();
        for (n, path) in paths.iter().enumerate() {
            let used = SystemTime::now() - Duration::from_secs(1_000 - n as u64);
            File::open(path).unwrap().set_modified(used).unwrap();
        }
        cache.evict(&paths[0], 300, 100);
        let left: Vec<_> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, false, false, true, true]);
        cache.evict(&paths[0], 300, 1);
        assert_eq!(cache.files().unwrap(), [paths[0].clone()]);
    }

    #[test]
    fn leftovers_of_dead_writers_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let (old, new) = (cache.folder.join(".1.tmp"), cache.folder.join(".2.tmp"));
        fs::write(&old, "").unwrap();
        fs::write(&new, "").unwrap();
        File::open(&old).unwrap().set_modified(SystemTime::now() - TEMPORARY_AGE_MAX * 2).unwrap();
        assert_eq!(cache.files().unwrap(), Vec::<PathBuf>::new());
        assert!(!old.exists() && new.exists());
    }
}
