//! `[plugins.NAME.grants]`: what the operator allows each plugin. Only this file grants; manifests can only ask.
//!
//! `dirs` (paths relative to the file's folder), `env` (names passed on, or values), `secrets` (values from a file or the
//! worker's environment, never logged), `http` (origins), `submit` (task patterns).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwork_plugin::PluginId;
use rwork_sandbox::egress::AllowList;
use rwork_sandbox::{Access, DirGrant, Grants, TaskPattern};

use super::document::{Entry, Item, Table, Value};
use super::raw::Raw;
use super::{Origin, unknown, wrong};
use crate::failure::Failure;

const GRANT_KEYS: &[&str] = &["dirs", "env", "secrets", "http", "submit"];
const DIR_KEYS: &[&str] = &["host", "guest", "access"];
const SECRET_KEYS: &[&str] = &["file", "env"];
/// Grants that later versions have.
const LATER: &[&str] = &["tcp", "kv"];
/// Largest secret, in bytes: certificates and keys are smaller.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads an environment variable of the worker.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where grants are read from.
pub(super) struct Source<'a> {
    /// The file, for errors.
    pub(super) path: &'a Path,
    /// The folder that relative paths start from.
    pub(super) base: &'a Path,
    /// The worker's environment.
    pub(super) variables: Lookup<'a>,
}

impl Source<'_> {
    fn at(&self, line: usize) -> Origin {
        Origin::File(self.path.to_path_buf(), line)
    }

    /// `[plugins]`.
    pub(super) fn plugins(&self, item: &Item) -> Result<BTreeMap<PluginId, Arc<Grants>>, Failure> {
        let mut plugins = BTreeMap::new();
        for entry in table("plugins", item, self)? {
            let id = PluginId::new(&entry.key)
                .map_err(|error| Failure::usage(format!("{}: {error}", self.at(entry.line))))?;
            let mut grants = Grants::default();
            for inner in table(&entry.key, &entry.item, self)? {
                match inner.key.as_str() {
                    "grants" => grants = self.grants(&inner.item)?,
                    key => {
                        let what = format!("key of [plugins.{}]", entry.key);
                        return Err(unknown(&self.at(inner.line), &what, key, ["grants"].into_iter()));
                    }
                }
            }
            plugins.insert(id, Arc::new(grants));
        }
        Ok(plugins)
    }

    fn grants(&self, item: &Item) -> Result<Grants, Failure> {
        let mut grants = Grants::default();
        for Entry { key, line, item } in table("grants", item, self)? {
            match key.as_str() {
                "dirs" => grants.dirs = self.list(item, key, |item| self.dir(item))?,
                "env" => grants.env.extend(self.env(item)?),
                "secrets" => grants.env.extend(self.secrets(item)?),
                "http" => grants.http = Arc::new(self.http(item)?),
                "submit" => grants.submit = self.list(item, key, |item| self.pattern(item))?,
                later if LATER.contains(&later) => {
                    let origin = self.at(*line);
                    return Err(Failure::usage(format!(
                        "{origin}: the grant `{later}` is not in this version"
                    )));
                }
                _ => return Err(unknown(&self.at(*line), "grant", key, GRANT_KEYS.iter().copied())),
            }
        }
        Ok(grants)
    }

    fn list<T>(
        &self,
        item: &Item,
        name: &str,
        read: impl Fn(&Item) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        match &item.value {
            Value::List(items) => items.iter().map(read).collect(),
            other => Err(wrong(&self.at(item.line), name, "an array", &Raw::Toml(other))),
        }
    }

    fn text(&self, item: &Item, name: &str) -> Result<String, Failure> {
        let raw = Raw::Toml(&item.value);
        raw.text().map_err(|expected| wrong(&self.at(item.line), name, &expected, &raw))
    }

    fn dir(&self, item: &Item) -> Result<DirGrant, Failure> {
        let (mut host, mut guest, mut access) = (None, None, Access::Read);
        for Entry { key, line, item } in table("dirs", item, self)? {
            match key.as_str() {
                "host" => {
                    let path = self.base.join(self.text(item, "host")?);
                    host = Some(std::path::absolute(&path).unwrap_or(path));
                }
                "guest" => guest = Some(self.guest(item)?),
                "access" => access = self.access(item)?,
                _ => {
                    return Err(unknown(
                        &self.at(*line),
                        "key of a directory grant",
                        key,
                        DIR_KEYS.iter().copied(),
                    ));
                }
            }
        }
        let missing = |name: &str| {
            Failure::usage(format!("{}: expected a directory grant to have `{name}`", self.at(item.line)))
                .hint("for example { host = \"./data\", guest = \"/data\", access = \"read\" }")
        };
        Ok(DirGrant {
            host: host.ok_or_else(|| missing("host"))?,
            guest: guest.ok_or_else(|| missing("guest"))?,
            access,
        })
    }

    fn guest(&self, item: &Item) -> Result<String, Failure> {
        let path = self.text(item, "guest")?;
        let absolute = path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if absolute {
            return Ok(path);
        }
        Err(wrong(&self.at(item.line), "guest", "an absolute path such as `/data`", &Raw::Toml(&item.value)))
    }

    fn access(&self, item: &Item) -> Result<Access, Failure> {
        let raw = Raw::Toml(&item.value);
        match raw.choice(&["read", "write", "read-write"]) {
            Ok("read") => Ok(Access::Read),
            Ok(_) => Ok(Access::ReadWrite),
            Err(expected) => Err(wrong(&self.at(item.line), "access", &expected, &raw)),
        }
    }

    /// `env = ["TZ"]` passes variables on; `env = { TZ = "UTC" }` sets them.
    fn env(&self, item: &Item) -> Result<Vec<(String, String)>, Failure> {
        match &item.value {
            Value::Table(entries) => entries
                .iter()
                .map(|entry| Ok((entry.key.clone(), self.text(&entry.item, &entry.key)?)))
                .collect(),
            _ => self.list(item, "env", |item| {
                let name = self.text(item, "env")?;
                let value = self.variable(&name, item.line)?;
                Ok((name, value))
            }),
        }
    }

    fn variable(&self, name: &str, line: usize) -> Result<String, Failure> {
        (self.variables)(name).ok_or_else(|| {
            Failure::usage(format!("{}: expected the variable `{name}` to be set, found none", self.at(line)))
                .hint(format!("set `{name}` for the worker, or remove it from the grant"))
        })
    }

    /// `secrets = { API_KEY = { file = "key.txt" } }`, or `{ env = "KEY" }`.
    fn secrets(&self, item: &Item) -> Result<Vec<(String, String)>, Failure> {
        table("secrets", item, self)?
            .iter()
            .map(|entry| Ok((entry.key.clone(), self.secret(entry)?)))
            .collect()
    }

    fn secret(&self, entry: &Entry) -> Result<String, Failure> {
        match table(&entry.key, &entry.item, self)?.as_slice() {
            [Entry { key, item, .. }] if key == "file" => {
                self.secret_file(&self.base.join(self.text(item, "file")?), item)
            }
            [Entry { key, item, .. }] if key == "env" => self.variable(&self.text(item, "env")?, item.line),
            [Entry { key, line, .. }] => {
                Err(unknown(&self.at(*line), "source of a secret", key, SECRET_KEYS.iter().copied()))
            }
            _ => Err(Failure::usage(format!(
                "{}: expected the secret `{}` to have one source, `file` or `env`",
                self.at(entry.line),
                entry.key
            ))),
        }
    }

    fn secret_file(&self, path: &Path, item: &Item) -> Result<String, Failure> {
        let failed = || {
            Failure::usage(format!("{}: failed to read the secret `{}`", self.at(item.line), path.display()))
        };
        let size = std::fs::metadata(path).map_err(|error| failed().because(error))?.len();
        if size > SECRET_BYTES_MAX {
            return Err(failed().because(format!("expected at most {SECRET_BYTES_MAX} bytes, found {size}")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed().because(error))?;
        // Editors and `echo` end files with a line break, which no secret means.
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    fn http(&self, item: &Item) -> Result<AllowList, Failure> {
        let entries = self.list(item, "http", |item| self.text(item, "http"))?;
        AllowList::parse(entries).map_err(|error| {
            let failure = Failure::usage(format!("{}: {error}", self.at(item.line)));
            failure.hint(error.hint())
        })
    }

    fn pattern(&self, item: &Item) -> Result<TaskPattern, Failure> {
        let text = self.text(item, "submit")?;
        TaskPattern::new(&text).map_err(|error| {
            Failure::usage(format!("{}: expected a task pattern, got `{text}`", self.at(item.line)))
                .because(error)
        })
    }
}

fn table<'a>(name: &str, item: &'a Item, source: &Source<'_>) -> Result<&'a Table, Failure> {
    match &item.value {
        Value::Table(entries) => Ok(entries),
        other => Err(wrong(&source.at(item.line), name, "a table", &Raw::Toml(other))),
    }
}

/// The folder that relative paths of a file start from.
pub(super) fn folder(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::super::document::parse;
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<PluginId, Arc<Grants>>, Failure> {
        let document = parse(text).unwrap();
        let variables = |name: &str| (name == "HOME").then(|| "/home/u".to_owned());
        let source =
            Source { path: Path::new("rwork.toml"), base: Path::new("/etc/rwork"), variables: &variables };
        source.plugins(&document[0].item)
    }

    #[test]
    fn grants_are_read() {
        let plugins = read(
            r#"
            [plugins.web.grants]
            http = ["https://example.com"]
            dirs = [{ host = "./data", guest = "/data" }, { host = "/srv", guest = "/srv", access = "write" }]
            env = ["HOME"]
            submit = ["reports.*"]
            [plugins.other.grants]
            env = { TZ = "UTC" }
            "#,
        )
        .unwrap();
        let web = &plugins["web"];
        assert_eq!(web.dirs[0].host, Path::new("/etc/rwork/./data"));
        assert_eq!((web.dirs[0].access, web.dirs[1].access), (Access::Read, Access::ReadWrite));
        assert_eq!(web.dirs[1].host, Path::new("/srv"));
        assert_eq!(web.env, [("HOME".to_owned(), "/home/u".to_owned())]);
        assert!(web.may_submit("reports.daily") && !web.http.is_empty());
        assert_eq!(plugins["other"].env, [("TZ".to_owned(), "UTC".to_owned())]);
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let path = std::env::temp_dir().join(format!("rwork-secret-{}", std::process::id()));
        std::fs::write(&path, "s3cret\n").unwrap();
        let plugins = read(&format!(
            "[plugins.a.grants]\nsecrets = {{ KEY = {{ file = \"{}\" }}, H = {{ env = \"HOME\" }} }}",
            path.display()
        ));
        std::fs::remove_file(&path).unwrap();
        let pairs = [("KEY".to_owned(), "s3cret".to_owned()), ("H".to_owned(), "/home/u".to_owned())];
        let env = &plugins.unwrap()["a"].env;
        assert!(pairs.iter().all(|pair| env.contains(pair)), "{env:?}");
    }

    #[test]
    fn mistakes_are_placed() {
        let check = |grants: &str, expect: &str| {
            let error = read(&format!("[plugins.web.grants]\n{grants}")).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("htp = []", "rwork.toml:2: unknown grant `htp`");
        check("http = \"x\"", "rwork.toml:2: expected `http` to be an array");
        check("http = [\"ftp://x\"]", "rwork.toml:2: ");
        check("dirs = [{ host = \"x\" }]", "expected a directory grant to have `guest`");
        check("dirs = [{ host = \"x\", guest = \"data\" }]", "expected `guest` to be an absolute path");
        check("dirs = [{ host = \"x\", guest = \"/a/../b\" }]", "expected `guest` to be an absolute path");
        check(
            "dirs = [{ host = \"x\", guest = \"/d\", access = \"all\" }]",
            "one of read, write, read-write",
        );
        check("env = [\"NO_SUCH\"]", "expected the variable `NO_SUCH` to be set");
        check("secrets = { K = { flie = \"x\" } }", "unknown source of a secret `flie`");
        check("secrets = { K = {} }", "one source, `file` or `env`");
        check("secrets = { K = { file = \"/no/such\" } }", "failed to read the secret");
        check("tcp = []", "the grant `tcp` is not in this version");
        check("submit = [\"[\"]", "expected a task pattern");
        assert!(read("[plugins.Web.grants]").unwrap_err().to_string().contains("expected a plugin name"));
        assert!(
            read("[plugins.web]\ngrant = {}")
                .unwrap_err()
                .to_string()
                .contains("unknown key of [plugins.web]")
        );
    }
}
