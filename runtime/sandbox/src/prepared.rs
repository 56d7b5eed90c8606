//! A plugin's code, checked against what this worker offers and its operator grants: ready to be instantiated.
//!
//! All questions are asked here, once per load, so that an invocation asks none.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{ComponentExportIndex, InstancePre, Linker};

use crate::artefact::Code;
use crate::bindings::exports::rwork::task::{cleanup, handler};
use crate::engine::{MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::error::{Error, boxed};
use crate::grants::Grants;
use crate::state::State;

/// What a plugin exports, whichever language it is written in.
const HANDLER: &str = "rwork:task/handler@0.1.0";
const HANDLER_TRACK: &str = "rwork:task/handler@0.1.";
const PAGE_BYTES: u64 = 64 << 10;

/// One task of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDeclaration {
    /// Celery's task name.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// A JSON object of options; empty: none.
    pub options: String,
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// SDK and version that built it.
    pub sdk: String,
    /// A JSON object of options of the whole plugin; empty: none.
    pub options: String,
    /// Its tasks.
    pub tasks: Vec<TaskDeclaration>,
}

/// Why a cleanup hook is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CleanupReason {
    /// The hard time limit.
    HardTimeLimit,
    /// The memory cap.
    MemoryLimit,
    /// A trap, with its message.
    Trap(String),
    /// Revoked with `terminate`.
    Revoked,
    /// Something else.
    Other(String),
}

/// A plugin that can be invoked.
pub struct Prepared {
    pub(crate) pre: InstancePre<State>,
    pub(crate) run: ComponentExportIndex,
    pub(crate) handler: handler::GuestIndices,
    pub(crate) cleanup: Option<cleanup::GuestIndices>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) plugin: Arc<str>,
    initial_bytes_max: usize,
}

impl Prepared {
    /// The plugin's name.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// What it is granted.
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Whether it exports a cleanup hook.
    pub fn has_cleanup(&self) -> bool {
        self.cleanup.is_some()
    }

    /// What its largest memory takes before the first instruction, in bytes: no smaller memory cap can work.
    pub fn initial_memory_bytes(&self) -> usize {
        self.initial_bytes_max
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

/// Checks world, imports and size, in this order, and resolves what an invocation needs.
pub(crate) fn prepare(
    linker: &Linker<State>,
    code: &Code,
    plugin: &str,
    grants: Arc<Grants>,
    memory_bytes_max: usize,
) -> Result<Prepared, Error> {
    let engine = linker.engine();
    check_world(engine, code, plugin)?;
    check_imports(engine, code, plugin, &grants)?;
    let initial_bytes_max = check_size(code, plugin, memory_bytes_max)?;
    let link = |error| Error::Link { plugin: plugin.to_owned(), source: boxed(error) };
    let pre = linker.instantiate_pre(&code.0).map_err(link)?;
    let handler = handler::GuestIndices::new(&pre).map_err(link)?;
    let export = |interface: Option<&ComponentExportIndex>, name: &str| {
        let missing = || link(wasmtime::format_err!("export `{name}` is missing"));
        code.0.get_export_index(interface, name).ok_or_else(missing)
    };
    let interface = export(None, HANDLER)?;
    let run = export(Some(&interface), "run")?;
    let cleanup = cleanup::GuestIndices::new(&pre).ok();
    Ok(Prepared { pre, run, handler, cleanup, grants, plugin: plugin.into(), initial_bytes_max })
}

fn check_world(engine: &Engine, code: &Code, plugin: &str) -> Result<(), Error> {
    let component = code.0.component_type();
    let exports: Vec<&str> = component.exports(engine).map(|(name, _)| name).collect();
    if exports.iter().any(|name| name.starts_with(HANDLER_TRACK)) {
        return Ok(());
    }
    let found = match exports.as_slice() {
        [] => "no exports".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    };
    Err(Error::World { plugin: plugin.to_owned(), expected: HANDLER, found })
}

/// Lists everything that is missing at once: what is not granted, or else what is not offered.
fn check_imports(engine: &Engine, code: &Code, plugin: &str, grants: &Grants) -> Result<(), Error> {
    let component = code.0.component_type();
    let imports: Vec<String> = component.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let unknown: Vec<String> = imports.iter().filter(|name| !is_offered(name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(Error::UnknownImports { plugin: plugin.to_owned(), imports: unknown });
    }
    let (mut missing, mut keys) = (Vec::new(), BTreeSet::new());
    for name in imports {
        if let Some(capability) = capability(&name).filter(|capability| !capability.is_granted(grants)) {
            keys.insert(capability);
            missing.push(format!("`{name}` (grant `{}`)", capability.key()));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut grant = format!("[plugins.{plugin}.grants]");
    keys.iter().for_each(|capability| grant.extend(["\n", capability.example()]));
    Err(Error::NotGranted { plugin: plugin.to_owned(), missing, grant })
}

/// What an import asks for that only an operator can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Capability {
    Http,
    Submit,
}

impl Capability {
    fn key(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Submit => "submit",
        }
    }

    fn is_granted(self, grants: &Grants) -> bool {
        match self {
            Self::Http => !grants.http.is_empty(),
            Self::Submit => !grants.submit.is_empty(),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Http => "http = [\"https://api.example.com\"] # the servers that it may reach",
            Self::Submit => "submit = [\"reports.*\"] # the tasks that it may send",
        }
    }
}

fn capability(import: &str) -> Option<Capability> {
    if import.starts_with("wasi:http/") {
        Some(Capability::Http)
    } else if import.starts_with("rwork:task/submit@") {
        Some(Capability::Submit)
    } else {
        None
    }
}

/// Whether some grant at all would let a plugin import this. Its functions and types are checked by the linker.
fn is_offered(import: &str) -> bool {
    let Some((path, version)) = import.split_once('@') else { return false };
    let Some((package, interface)) = path.split_once('/') else { return false };
    match package {
        "rwork:task" => version.starts_with("0.1.") && RWORK.contains(&interface),
        "wasi:cli" | "wasi:clocks" | "wasi:filesystem" | "wasi:io" | "wasi:random" | "wasi:sockets" => {
            version.starts_with("0.2.")
        }
        "wasi:http" => version.starts_with("0.2.") && ["types", "outgoing-handler"].contains(&interface),
        _ => false,
    }
}

const RWORK: [&str; 7] = ["types", "request", "limits", "stop", "log", "progress", "submit"];

fn check_size(code: &Code, plugin: &str, memory_bytes_max: usize) -> Result<usize, Error> {
    // None: it imports core modules, which only a component inside another can.
    let Some(needs) = code.0.resources_required() else { return Ok(0) };
    let too_large = |what| Err(Error::TooLarge { plugin: plugin.to_owned(), what });
    if needs.num_memories > MEMORIES_MAX {
        return too_large(format!("{} memories of at most {MEMORIES_MAX}", needs.num_memories));
    }
    if needs.num_tables > TABLES_MAX {
        return too_large(format!("{} tables of at most {TABLES_MAX}", needs.num_tables));
    }
    let elements = needs.max_initial_table_size.unwrap_or(0);
    if usize::try_from(elements).map_or(true, |elements| elements > TABLE_ELEMENTS_MAX) {
        return too_large(format!("a table of {elements} elements of at most {TABLE_ELEMENTS_MAX}"));
    }
    let bytes = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES);
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= memory_bytes_max => Ok(bytes),
        _ => too_large(format!("it is born with {bytes} bytes of memory, of at most {memory_bytes_max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_offered_by_package_and_track() {
        for (import, expect) in [
            ("rwork:task/log@0.1.0", true),
            ("rwork:task/log@0.1.7", true),
            ("rwork:task/log@0.2.0", false),
            ("rwork:task/kv@0.1.0", false),
            ("wasi:io/poll@0.2.6", true),
            ("wasi:io/poll@0.3.0", false),
            ("wasi:http/outgoing-handler@0.2.3", true),
            ("wasi:keyvalue/store@0.2.0-draft", false),
            ("log", false),
        ] {
            assert_eq!(is_offered(import), expect, "{import}");
        }
    }
}
