//! Plugin files for reloads: as many good versions as wanted, and broken ones of each kind.

use std::path::Path;

use rwork_tests::guests::guest;

/// The `history` plugin as it was built.
pub(super) fn guest_bytes() -> anyhow::Result<Vec<u8>> {
    Ok(std::fs::read(guest("history"))?)
}

/// The same component with another digest: a custom section at its end says which version it is.
pub(super) fn version(component: &[u8], number: u64) -> Vec<u8> {
    const CUSTOM_SECTION: u8 = 0;
    const NAME: &[u8] = b"version";
    let mut section = vec![u8::try_from(NAME.len()).unwrap()];
    section.extend(NAME);
    section.extend(number.to_le_bytes());
    // One byte of LEB128 holds up to 127.
    assert!(section.len() < 128);
    let mut bytes = component.to_vec();
    bytes.extend([CUSTOM_SECTION, u8::try_from(section.len()).unwrap()]);
    bytes.extend(section);
    bytes
}

/// A file that can't be used, and a part of what is said about it; the kinds take turns.
pub(super) fn broken(component: &[u8], number: usize, rng: &mut fastrand::Rng) -> (Vec<u8>, &'static str) {
    match number % 4 {
        0 => (component[..rng.usize(component.len() / 4..component.len() * 3 / 4)].to_vec(), "truncated"),
        1 => {
            let mut bytes: Vec<u8> = (0..component.len()).map(|_| rng.u8(..)).collect();
            // Never by chance the first byte of a real one.
            bytes[0] = 0xff;
            (bytes, "not WebAssembly")
        }
        // A core module of nothing.
        2 => (b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module"),
        // A component of nothing: the wrong world.
        _ => (b"\0asm\x0d\0\x01\0".to_vec(), "expected the export"),
    }
}

/// Puts a file in the place of the plugin as the documentation says: written elsewhere, then renamed.
pub(super) fn install(plugin: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let aside = plugin.with_extension("new");
    std::fs::write(&aside, bytes)?;
    Ok(std::fs::rename(&aside, plugin)?)
}
