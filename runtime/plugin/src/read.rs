//! Reads a component and its manifest once, whole, and within limits.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::discovery::{Found, default_id};
use crate::error::Error;
use crate::id::PluginId;
use crate::manifest::Manifest;
use crate::stamp::Stamp;

/// Largest component by default: Python's with its libraries are 20 to 30 MB, and each byte is compiled.
pub const COMPONENT_BYTES_MAX: u64 = 32 << 20;

/// Largest manifest: a thousand tasks with all their options fit.
const MANIFEST_BYTES_MAX: u64 = 256 << 10;

/// A plugin's files, as they were at one moment.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) found: Found,
    pub(crate) id: PluginId,
    pub(crate) bytes: Vec<u8>,
    /// `sha256:` and 64 hexadecimal digits, of the component's bytes.
    pub(crate) digest: Arc<str>,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_text: String,
}

/// Why there is no [`Source`].
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It was written or moved while it was read: look again later.
    Changed,
    /// It will not get better by itself.
    Wrong(Error),
}

/// Reads both files. Blocking.
pub(crate) fn read(found: &Found, bytes_max: u64) -> Result<Source, ReadError> {
    let bytes = read_whole(&found.wasm, bytes_max)?;
    let manifest_text = match &found.manifest {
        Some(path) => read_text(path)?,
        None => String::new(),
    };
    let manifest = match &found.manifest {
        Some(path) => Manifest::parse(path, &manifest_text).map_err(ReadError::Wrong)?,
        None => Manifest::default(),
    };
    let id = match &manifest.name {
        Some(name) => name.clone(),
        None => default_id(&found.wasm).map_err(ReadError::Wrong)?,
    };
    let digest = digest(&bytes);
    Ok(Source { found: found.clone(), id, bytes, digest, manifest, manifest_text })
}

/// The digest that stands for a component in results, events and traces.
fn digest(bytes: &[u8]) -> Arc<str> {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text.into()
}

fn read_text(path: &Path) -> Result<String, ReadError> {
    String::from_utf8(read_whole(path, MANIFEST_BYTES_MAX)?).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        ReadError::Wrong(Error::Manifest {
            path: path.to_owned(),
            line: good.iter().filter(|byte| **byte == b'\n').count() + 1,
            message: "expected UTF-8 text".to_owned(),
        })
    })
}

fn read_whole(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        // It was there a moment ago, in the scan.
        std::io::ErrorKind::NotFound => ReadError::Changed,
        _ => ReadError::Wrong(Error::Unreadable { path: path.to_owned(), source }),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let before = Stamp::of(&file.metadata().map_err(unreadable)?);
    if before.bytes > max {
        return Err(ReadError::Wrong(Error::TooLarge { path: path.to_owned(), size: before.bytes, max }));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or_default());
    file.by_ref().take(max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let after = Stamp::read(path).map_err(unreadable)?;
    if before != after || bytes.len() as u64 != before.bytes {
        return Err(ReadError::Changed);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wasm: &Path) -> Found {
        Found { wasm: wasm.to_owned(), manifest: None }
    }

    #[test]
    fn digest_and_name_come_from_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("math.wasm");
        std::fs::write(&path, "abc").unwrap();
        let source = read(&found(&path), 3).unwrap();
        assert_eq!(source.id.as_str(), "math");
        assert_eq!(
            &*source.digest,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_manifest_names_the_plugin() {
        let root = tempfile::tempdir().unwrap();
        let (wasm, toml) = (root.path().join("Math v2.wasm"), root.path().join("plugin.toml"));
        std::fs::write(&wasm, "abc").unwrap();
        assert!(matches!(read(&found(&wasm), 3), Err(ReadError::Wrong(Error::Name { .. }))));
        std::fs::write(&toml, "name = \"math\"").unwrap();
        let source = read(&Found { wasm, manifest: Some(toml) }, 3).unwrap();
        assert_eq!(source.id.as_str(), "math");
    }

    #[test]
    fn what_is_too_large_is_not_read_and_what_is_gone_has_changed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("math.wasm");
        std::fs::write(&path, "abcd").unwrap();
        match read(&found(&path), 3).unwrap_err() {
            ReadError::Wrong(error) => {
                assert_eq!(
                    error.to_string(),
                    format!("expected `{}` to be at most 3 B, found 4 B", path.display())
                );
            }
            ReadError::Changed => panic!("it did not change"),
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&found(&path), 3), Err(ReadError::Changed)));
    }

    #[test]
    fn a_manifest_that_is_no_text_names_its_line() {
        let root = tempfile::tempdir().unwrap();
        let (wasm, manifest) = (root.path().join("a.wasm"), root.path().join("a.toml"));
        std::fs::write(&wasm, "abc").unwrap();
        std::fs::write(&manifest, b"name = \"a\"\n\xff").unwrap();
        let wrong = read(&Found { wasm, manifest: Some(manifest) }, 3).unwrap_err();
        assert!(matches!(wrong, ReadError::Wrong(Error::Manifest { line: 2, .. })));
    }
}
