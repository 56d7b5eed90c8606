//! From the bytes of a file to code that can run: is it a component, compile it, map what was compiled.
//!
//! Where artefacts are kept, and for how long, is the plugin crate's business.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{Error, boxed};

const MAGIC: &[u8] = b"\0asm";
const COMPONENT_VERSION: [u8; 4] = [0x0d, 0x00, 0x01, 0x00];
const MODULE_VERSION: [u8; 4] = [0x01, 0x00, 0x00, 0x00];
const HEADER_BYTES: usize = 8;

/// Compiled code of one component, ready to be linked. Cheap to clone; the code is freed with the last clone.
#[derive(Clone)]
pub struct Code(pub(crate) Component);

impl Code {
    /// What the component imports, as it names it: `rwork:task/log@0.1.0`.
    pub fn imports(&self) -> Vec<String> {
        self.0.component_type().imports(self.0.engine()).map(|(name, _)| name.to_owned()).collect()
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").finish_non_exhaustive()
    }
}

/// Why a file is no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAComponent {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Something else entirely.
    #[error("the file is not WebAssembly: expected it to begin with `\\0asm`, found {found}")]
    NotWasm {
        /// Its first bytes, readable.
        found: String,
    },
    /// The text format.
    #[error("the file is WebAssembly text, not a binary component")]
    Text,
    /// Code compiled by wasmtime, which is native code and never taken from a plugin directory.
    #[error("the file is precompiled native code, not a component")]
    Precompiled,
    /// A core module.
    #[error("the file is a core WebAssembly module, not a component")]
    CoreModule,
    /// A binary of another version.
    #[error("the file is WebAssembly of an unknown version {version:02x?}")]
    UnknownVersion {
        /// Bytes 4 to 7.
        version: Vec<u8>,
    },
    /// It ends early.
    #[error("the file is truncated: a section at byte {at} needs {missing} more bytes than there are")]
    Truncated {
        /// Where the section starts.
        at: usize,
        /// How much is missing, at least.
        missing: usize,
    },
    /// It is larger than the limit.
    #[error("the component has {size} bytes, more than the {max} that are compiled")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
    },
}

impl NotAComponent {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Empty | Self::Truncated { .. } => {
                Some("copy it again, to a temporary name beside it, then rename it")
            }
            Self::CoreModule => Some("build it with `rwork build`, or for the target wasm32-wasip2"),
            Self::NotWasm { .. } | Self::Text | Self::Precompiled => {
                Some("put the `.wasm` that `rwork build` made there")
            }
            Self::TooLarge { .. } => Some("build it in release mode and strip debug information"),
            Self::UnknownVersion { .. } => None,
        }
    }
}

/// Tells a whole component from everything that is found under a name like `x.wasm`.
pub(crate) fn check(bytes: &[u8], bytes_max: usize) -> Result<(), NotAComponent> {
    if bytes.is_empty() {
        return Err(NotAComponent::Empty);
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(NotAComponent::Precompiled);
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(foreign(bytes));
    };
    match rest.get(..4) {
        Some(version) if version == COMPONENT_VERSION => {}
        Some(version) if version == MODULE_VERSION => return Err(NotAComponent::CoreModule),
        Some(version) => return Err(NotAComponent::UnknownVersion { version: version.to_vec() }),
        None => {
            return Err(NotAComponent::Truncated { at: MAGIC.len(), missing: HEADER_BYTES - bytes.len() });
        }
    }
    if bytes.len() > bytes_max {
        return Err(NotAComponent::TooLarge { size: bytes.len(), max: bytes_max });
    }
    check_sections(bytes)
}

fn foreign(bytes: &[u8]) -> NotAComponent {
    if MAGIC.starts_with(bytes) {
        return NotAComponent::Truncated { at: 0, missing: HEADER_BYTES.saturating_sub(bytes.len()) };
    }
    if bytes.trim_ascii_start().starts_with(b"(") {
        return NotAComponent::Text;
    }
    let start = bytes.get(..8).unwrap_or(bytes);
    NotAComponent::NotWasm { found: format!("`{}`", start.escape_ascii()) }
}

/// Walks the sections' lengths: a file that was cut off ends inside one.
fn check_sections(bytes: &[u8]) -> Result<(), NotAComponent> {
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let body = bytes.get(at + 1..).unwrap_or_default();
        let Some((length, prefix)) = leb128(body) else {
            return Err(NotAComponent::Truncated { at, missing: 1 });
        };
        let left = body.len() - prefix;
        if length > left {
            return Err(NotAComponent::Truncated { at, missing: length - left });
        }
        at += 1 + prefix + length;
    }
    Ok(())
}

/// An unsigned number of at most 32 bits, and how many bytes it takes. An overlong one is the compiler's to refuse.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

pub(crate) fn compile(engine: &Engine, wasm: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
    check(wasm, bytes_max)?;
    engine.precompile_component(wasm).map_err(|error| Error::Compile(boxed(error)))
}

/// Changes with the engine's version, its settings and this machine's processor: an artefact made under another hash
/// would be refused, or run code that a later version of the compiler gets right.
pub(crate) fn compatibility_hash(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn load(engine: &Engine, path: &Path) -> Result<Code, Error> {
    let failed = |error| Error::Load { path: path.to_owned(), source: boxed(error) };
    // SAFETY: the caller of `Sandbox::load_artefact` promises that the file was made by `compile` and lies in a
    // directory that only this user can write, and that it is replaced by renaming, never modified in place.
    #[expect(unsafe_code, reason = "native code can only be trusted, not checked")]
    let component = unsafe { Component::deserialize_file(engine, path) }.map_err(failed)?;
    component.initialize_copy_on_write_image().map_err(failed)?;
    Ok(Code(component))
}

pub(crate) fn compile_in_memory(engine: &Engine, wasm: &[u8], bytes_max: usize) -> Result<Code, Error> {
    check(wasm, bytes_max)?;
    let component = Component::from_binary(engine, wasm).map_err(|error| Error::Compile(boxed(error)))?;
    component.initialize_copy_on_write_image().map_err(|error| Error::Compile(boxed(error)))?;
    Ok(Code(component))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component() -> Vec<u8> {
        wat::parse_str("(component (core module (func (export \"f\"))))").unwrap()
    }

    #[test]
    fn what_is_no_component_is_named() {
        for (bytes, expect) in [
            (&b""[..], "the file is empty"),
            (b"\0as", "the file is truncated: a section at byte 0 needs 5 more bytes than there are"),
            (
                b"#!/bin/sh\n",
                "the file is not WebAssembly: expected it to begin with `\\0asm`, found `#!/bin/s`",
            ),
            (b"  (component)", "the file is WebAssembly text, not a binary component"),
            (b"\0asm\x01\0\0\0", "the file is a core WebAssembly module, not a component"),
            (b"\0asm\x0a\0\x01\0", "the file is WebAssembly of an unknown version [0a, 00, 01, 00]"),
            (b"\0asm\x0d\0", "the file is truncated: a section at byte 4 needs 2 more bytes than there are"),
        ] {
            assert_eq!(check(bytes, 1_000).unwrap_err().to_string(), expect);
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_truncated() {
        let whole = component();
        check(&whole, 1_000).unwrap();
        for end in 1..whole.len() {
            let cut = whole.get(..end).unwrap();
            if end == HEADER_BYTES {
                continue; // The empty component is a component.
            }
            let error = check(cut, 1_000).unwrap_err();
            assert!(matches!(error, NotAComponent::Truncated { .. }), "{end}: {error}");
        }
    }

    #[test]
    fn an_oversized_component_is_refused_before_it_is_compiled() {
        let error = check(&component(), 10).unwrap_err();
        assert!(matches!(error, NotAComponent::TooLarge { max: 10, .. }));
    }
}
