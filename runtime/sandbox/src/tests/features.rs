//! What must not be compiled into the engine: each is attack surface that rwork does not use, and a dependency that
//! asks for wasmtime's defaults would turn it on for everyone.

use std::process::Command;

use cargo_metadata::{CargoOpt, MetadataCommand};

const UNWANTED: [&str; 9] = [
    "component-model-async",
    "gc",
    "gc-drc",
    "gc-null",
    "threads",
    "winch",
    "stack-switching",
    "debug",
    "cache",
];

#[test]
fn unwanted_features_of_wasmtime_are_off() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .features(CargoOpt::AllFeatures)
        // Packages of other platforms are not on this machine.
        .other_options(["--offline".to_owned(), "--filter-platform".to_owned(), host_platform()])
        .exec()
        .unwrap();
    let is_wasmtime = |id: &cargo_metadata::PackageId| {
        metadata.packages.iter().any(|package| package.id == *id && package.name.as_str() == "wasmtime")
    };
    let nodes = metadata.resolve.unwrap().nodes;
    let nodes: Vec<_> = nodes.iter().filter(|node| is_wasmtime(&node.id)).collect();
    assert_eq!(nodes.len(), 1, "one wasmtime in the whole workspace");
    for feature in &nodes[0].features {
        assert!(!UNWANTED.contains(&feature.as_str()), "wasmtime's `{feature}` is on");
    }
    assert!(nodes[0].features.iter().any(|feature| feature.as_str() == "pooling-allocator"));
}

fn host_platform() -> String {
    let version = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}
