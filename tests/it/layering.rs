//! The picture of `docs/architecture.md`, checked: who may depend on whom, and where a heavy library may live.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each crate, and the crates of the workspace that it may use. Anything not listed is a mistake.
const MAY_USE: &[(&str, &[&str])] = &[
    ("rwork-protocol", &[]),
    ("rwork-broker", &["rwork-protocol", "rwork-backend"]),
    ("rwork-backend", &["rwork-protocol"]),
    ("rwork-embedded", &["rwork-protocol", "rwork-broker", "rwork-backend"]),
    ("rwork-net", &["rwork-protocol"]),
    ("rwork-amqp", &["rwork-protocol", "rwork-broker", "rwork-backend", "rwork-net"]),
    ("rwork-redis", &["rwork-protocol", "rwork-broker", "rwork-backend", "rwork-net"]),
    ("rwork-sandbox", &[]),
    ("rwork-plugin", &["rwork-protocol", "rwork-sandbox"]),
    ("rwork-canvas", &["rwork-protocol"]),
    (
        "rwork-worker",
        &["rwork-protocol", "rwork-broker", "rwork-backend", "rwork-sandbox", "rwork-plugin", "rwork-canvas"],
    ),
    ("rwork-client", &["rwork-protocol", "rwork-broker", "rwork-backend"]),
    ("rwork", &["rwork-macros"]),
    ("rwork-macros", &[]),
];

/// Libraries that are named by one crate only.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("rusqlite", &["rwork-embedded"]),
    ("redis", &["rwork-redis", "rwork-tests"]),
    ("lapin", &["rwork-amqp"]),
    ("async-rs", &["rwork-amqp"]),
    ("rustls-platform-verifier", &["rwork-net"]),
    ("wasmtime", &["rwork-sandbox"]),
    ("wasmtime-wasi", &["rwork-sandbox"]),
    ("wasmtime-wasi-http", &["rwork-sandbox"]),
    ("clap", &["rwork-cli"]),
    ("anyhow", &["rwork-cli", "rwork-tests"]),
    ("notify", &["rwork-plugin", "rwork-embedded"]),
];

#[test]
fn crates_use_only_what_the_picture_shows() {
    let metadata = metadata();
    let ours: BTreeSet<_> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let mut wrong = Vec::new();
    for (name, allowed) in MAY_USE {
        for used in dependencies(package(&metadata, name)) {
            if ours.contains(&used) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name} must not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that docs/architecture.md does not draw:\n{}", wrong.join("\n"));
}

#[test]
fn every_runtime_crate_is_in_the_picture() {
    for package in metadata().workspace_packages() {
        let path = package.manifest_path.as_str();
        let drawn = MAY_USE.iter().any(|(name, _)| *name == package.name.as_str());
        assert!(
            drawn || path.contains("/plugins/") || path.contains("/tests/") || path.contains("/cli/"),
            "{} is not in the picture",
            package.name
        );
    }
}

#[test]
fn heavy_libraries_sit_in_one_crate() {
    for package in metadata().workspace_packages() {
        for used in dependencies(package) {
            if let Some((_, homes)) = ONLY_IN.iter().find(|(library, _)| *library == used) {
                assert!(homes.contains(&package.name.as_str()), "{} must not use {used}", package.name);
            }
        }
    }
}

#[test]
fn the_pure_crates_have_no_runtime() {
    let metadata = metadata();
    for name in ["rwork-protocol", "rwork-canvas"] {
        let used = dependencies(package(&metadata, name));
        for runtime in ["tokio", "tokio-util", "async-trait", "futures-util"] {
            assert!(!used.contains(runtime), "{name} does no IO and must not use {runtime}");
        }
    }
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap()
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name).unwrap_or_else(|| {
        panic!("{name} is in the picture but not in the workspace");
    })
}

fn dependencies(package: &Package) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.clone())
        .collect()
}
