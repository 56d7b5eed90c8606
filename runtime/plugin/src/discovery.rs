//! Finds plugins: every `*.wasm` in the directory or one level below it, each with its manifest.
//!
//! It looks at names and kinds only; nothing is opened. Source folders may live here too: what cargo builds is several
//! levels deep and so never picked. Names that begin with a dot are left alone, since copying tools use them for files
//! that are not whole yet. A symlink is followed, and since there is only one level, it can't lead in circles.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::id::PluginId;

/// Most components in one directory: each costs compiled code in memory and a line in every listing.
pub const PLUGINS_MAX: usize = 1_000;

/// Most directory entries that are looked at: a guard against `--plugins /usr`.
const ENTRIES_MAX: usize = 50_000;

/// The manifest's name when it is not named after the component.
const FOLDER_MANIFEST: &str = "plugin.toml";

/// A component and the manifest beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) wasm: PathBuf,
    pub(crate) manifest: Option<PathBuf>,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Ordered by path, so that every worker sees the same order.
    pub(crate) found: Vec<Found>,
    /// What looks like a plugin and can't be one.
    pub(crate) problems: Vec<(PathBuf, Error)>,
    /// The directory and its folders: what is worth watching.
    pub(crate) folders: Vec<PathBuf>,
}

/// Looks through a plugin directory. Blocking.
///
/// # Errors
/// [`Error::Directory`] when the directory itself can't be read, [`Error::TooMany`] when it holds too much.
pub(crate) fn scan(directory: &Path) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    let mut budget = ENTRIES_MAX;
    let folders = scan.folder(directory, &mut budget, directory).map_err(|error| match error {
        Error::Unreadable { path, source } => Error::Directory { path, source },
        other => other,
    })?;
    for folder in folders {
        match scan.folder(&folder, &mut budget, directory) {
            Ok(_) => {}
            Err(error @ Error::Unreadable { .. }) => scan.problems.push((folder, error)),
            Err(error) => return Err(error),
        }
    }
    scan.found.sort_by(|a, b| a.wasm.cmp(&b.wasm));
    Ok(scan)
}

/// The manifest of a component that is named on its own (`rwork plugins check FILE`).
pub(crate) fn beside(wasm: &Path) -> Found {
    let manifest = [wasm.with_extension("toml"), wasm.with_file_name(FOLDER_MANIFEST)];
    Found { wasm: wasm.to_owned(), manifest: manifest.into_iter().find(|path| path.is_file()) }
}

/// The plugin's name when its manifest gives none: the stem of the file, or of the folder for `plugin.wasm`.
pub(crate) fn default_id(wasm: &Path) -> Result<PluginId, Error> {
    let stem = wasm.file_stem().unwrap_or_default();
    let name = match wasm.parent().and_then(Path::file_name) {
        Some(folder) if stem == "plugin" => folder,
        _ => stem,
    };
    PluginId::new(name.to_string_lossy()).map_err(|source| Error::Name { path: wasm.to_owned(), source })
}

impl Scan {
    /// Takes the components of one folder and returns the folders in it.
    fn folder(&mut self, folder: &Path, budget: &mut usize, root: &Path) -> Result<Vec<PathBuf>, Error> {
        let unreadable = |source| Error::Unreadable { path: folder.to_owned(), source };
        let too_many = || Error::TooMany { directory: root.to_owned() };
        let (mut folders, mut components) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            *budget = budget.checked_sub(1).ok_or_else(too_many)?;
            if hidden(&path) {
                continue;
            }
            let component = path.extension() == Some(OsStr::new("wasm"));
            // Follows a symlink, once.
            match fs::metadata(&path) {
                Ok(kind) if kind.is_file() && component => components.push(path),
                Ok(kind) if kind.is_dir() && !component => folders.push(path),
                Ok(kind) if component => self.problem(&path, not_a_file(&path, &kind)),
                Err(source) if component => {
                    self.problem(&path, Error::Unreadable { path: path.clone(), source })
                }
                _ => {}
            }
        }
        if self.found.len() + components.len() > PLUGINS_MAX {
            return Err(too_many());
        }
        self.folders.push(folder.to_owned());
        self.take(components);
        Ok(folders)
    }

    /// Pairs the components of one folder with their manifests. `plugin.toml` belongs to the one that has no manifest of
    /// its own name.
    fn take(&mut self, components: Vec<PathBuf>) {
        let unnamed = components.iter().filter(|wasm| !wasm.with_extension("toml").is_file()).count();
        for wasm in components {
            let own = Some(wasm.with_extension("toml")).filter(|path| path.is_file());
            let shared = wasm.with_file_name(FOLDER_MANIFEST);
            let shared = Some(shared).filter(|path| own.as_ref() != Some(path) && path.is_file());
            match (own, shared) {
                (Some(own), Some(shared)) if unnamed == 0 => {
                    let error = Error::TwoManifests { path: wasm.clone(), own, shared };
                    self.problem(&wasm, error);
                }
                (None, Some(shared)) if unnamed > 1 => {
                    self.problem(&wasm, Error::SharedManifest { path: wasm.clone(), shared });
                }
                (own, shared) => self.found.push(Found { wasm, manifest: own.or(shared) }),
            }
        }
    }

    fn problem(&mut self, path: &Path, error: Error) {
        self.problems.push((path.to_owned(), error));
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The error for a name like `x.wasm` that belongs to something else.
pub(crate) fn not_a_file(path: &Path, kind: &fs::Metadata) -> Error {
    let found = if kind.is_dir() { "a directory" } else { "neither a file nor a directory" };
    Error::NotAFile { path: path.to_owned(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn names(root: &Path, found: &[Found]) -> Vec<(String, Option<String>)> {
        let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        found.iter().map(|found| (name(&found.wasm), found.manifest.as_deref().map(name))).collect()
    }

    #[test]
    fn components_are_found_at_two_levels_and_no_deeper() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for file in [
            "math.wasm",
            "math.toml",
            "README.md",
            ".half.wasm",
            "text/text.wasm",
            "text/plugin.toml",
            "text/src/lib.rs",
            "text/target/wasm32-wasip2/guest/text.wasm",
            "two/a.wasm",
            "two/a.toml",
            "two/b.wasm",
            "two/plugin.toml",
            ".git/x.wasm",
            "web/plugin.wasm",
        ] {
            touch(root.join(file));
        }
        let scan = scan(root).unwrap();
        assert!(scan.problems.is_empty());
        let expected = [
            ("math.wasm", Some("math.toml")),
            ("text/text.wasm", Some("text/plugin.toml")),
            ("two/a.wasm", Some("two/a.toml")),
            ("two/b.wasm", Some("two/plugin.toml")),
            ("web/plugin.wasm", None),
        ];
        let expected: Vec<_> =
            expected.map(|(wasm, toml)| (wasm.to_owned(), toml.map(str::to_owned))).to_vec();
        assert_eq!(names(root, &scan.found), expected);
        assert_eq!(scan.folders.len(), 4);
        assert_eq!(default_id(&root.join("web/plugin.wasm")).unwrap().as_str(), "web");
        assert_eq!(default_id(&root.join("two/b.wasm")).unwrap().as_str(), "b");
    }

    #[test]
    fn the_folder_of_a_plugin_can_be_the_directory_itself() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(root.join("greeting.wasm"));
        touch(root.join("plugin.toml"));
        touch(root.join("target/wasm32-wasip2/guest/greeting.wasm"));
        let found = scan(root).unwrap().found;
        assert_eq!(names(root, &found), [("greeting.wasm".to_owned(), Some("plugin.toml".to_owned()))]);
    }

    #[test]
    fn what_can_not_be_a_plugin_is_one_clear_problem_each() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for file in [
            "x.wasm/inner.wasm",
            "both/a.wasm",
            "both/a.toml",
            "both/plugin.toml",
            "many/a.wasm",
            "many/b.wasm",
        ] {
            touch(root.join(file));
        }
        touch(root.join("many/plugin.toml"));
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling.wasm")).unwrap();
        let scan = scan(root).unwrap();
        assert!(scan.found.is_empty(), "{:?}", scan.found);
        let mut problems: Vec<_> = scan.problems.iter().map(|(_, error)| error.to_string()).collect();
        problems.sort();
        let root = root.display();
        assert_eq!(
            problems,
            [
                format!(
                    "`{root}/both/a.wasm` has two manifests, `{root}/both/a.toml` and `{root}/both/plugin.toml`"
                ),
                format!("`{root}/dangling.wasm` can't be read"),
                format!(
                    "`{root}/many/plugin.toml` stands beside several components, `{root}/many/a.wasm` among them"
                ),
                format!(
                    "`{root}/many/plugin.toml` stands beside several components, `{root}/many/b.wasm` among them"
                ),
                format!("expected `{root}/x.wasm` to be a file, found a directory"),
            ]
        );
        assert!(scan.problems.iter().all(|(_, error)| error.hint().is_some()));
    }

    #[test]
    fn links_are_followed_and_a_loop_ends() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        touch(elsewhere.path().join("math.wasm"));
        std::os::unix::fs::symlink(elsewhere.path(), root.path().join("linked")).unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("math.wasm"), root.path().join("direct.wasm"))
            .unwrap();
        let found = scan(root.path()).unwrap().found;
        let names: Vec<_> = names(root.path(), &found).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["direct.wasm", "linked/math.wasm", "loop/direct.wasm"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("plugins");
        assert!(matches!(scan(&missing), Err(Error::Directory { path, .. }) if path == missing));
    }

    #[test]
    fn too_many_components_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..=PLUGINS_MAX {
            touch(root.path().join(format!("{n}.wasm")));
        }
        assert!(matches!(scan(root.path()), Err(Error::TooMany { .. })));
    }
}
