//! From a .wasm file and its manifest to a checked, live plugin.
