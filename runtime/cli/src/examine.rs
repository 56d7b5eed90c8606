//! What a component is, without serving it: size, imports, memory, tasks. For `rwork build` and `rwork plugins inspect`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwork_plugin::TaskOptions;
use rwork_sandbox::egress::AllowList;
use rwork_sandbox::{Grants, Sandbox, SandboxConfig, TaskDeclaration, TaskPattern};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use wasmparser::{ConstExpr, Data, DataKind, Operator, Parser, Payload, ValType};

use crate::config::show_bytes;
use crate::failure::Failure;
use crate::printer::{Printer, Tone, tame};

/// A plugin that is born with less room for its heap grows its memory before its first byte of work, which costs more than
/// the work.
const HEAP_MIN: u64 = 64 << 10;

/// A larger stack pushes a small plugin's data out of what the worker clears fast between two tasks.
const STACK_MAX: u64 = 512 << 10;

/// What one component is.
#[derive(Debug)]
pub(crate) struct Examined {
    /// The file.
    pub(crate) path: PathBuf,
    /// Bytes of the file.
    pub(crate) size: usize,
    /// `sha256:…`.
    pub(crate) digest: String,
    /// Everything it imports.
    pub(crate) imports: Vec<String>,
    /// SDK and version.
    pub(crate) sdk: String,
    /// Its tasks.
    pub(crate) tasks: Vec<TaskDeclaration>,
    /// Memory before the first instruction.
    pub(crate) initial_memory: usize,
    /// Its stack, where it can be told.
    pub(crate) stack: Option<u64>,
    /// Room for a heap in the memory that it starts with, at most: what its data leaves.
    pub(crate) heap: u64,
    /// Whether it has a cleanup hook.
    pub(crate) cleanup: bool,
}

/// A sandbox for looking at plugins: one guest at a time, nothing reserved.
pub(crate) fn sandbox(io: &Handle) -> anyhow::Result<Sandbox> {
    let config = SandboxConfig { max_in_flight: 1, ..SandboxConfig::with_concurrency(1) };
    Ok(Sandbox::new(config, io.clone())?)
}

/// Compiles a component, checks it, asks it for its tasks.
///
/// # Errors
/// Whatever a worker would refuse it for, but for missing grants.
pub(crate) async fn examine(sandbox: &Sandbox, path: &Path) -> anyhow::Result<Examined> {
    let wrong = |error: anyhow::Error| {
        let hint = error.downcast_ref::<rwork_sandbox::Error>().and_then(rwork_sandbox::Error::hint);
        let failure = Failure::failed(format!("`{}` is no plugin", path.display()));
        let failure = match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        anyhow::Error::from(failure.because(error))
    };
    let wasm = std::fs::read(path)
        .map_err(|error| Failure::failed(format!("failed to read `{}`", path.display())).because(error))?;
    let compiled = {
        let (sandbox, wasm) = (sandbox.clone(), wasm.clone());
        tokio::task::spawn_blocking(move || sandbox.compile_in_memory(&wasm)).await?
    };
    let code = compiled.map_err(|error| wrong(error.into()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let prepared = Arc::new(sandbox.link(&code, &name, everything()?).map_err(|error| wrong(error.into()))?);
    let initial_memory = prepared.initial_memory_bytes();
    let description = sandbox.describe(&prepared).await.map_err(|error| wrong(error.into()))?;
    for task in &description.tasks {
        TaskOptions::from_json(&task.options)
            .map_err(|expected| wrong(anyhow::anyhow!("task `{}`: {expected}", task.name)))?;
    }
    Ok(Examined {
        path: path.to_owned(),
        size: wasm.len(),
        digest: format!("sha256:{:x}", Sha256::digest(&wasm)),
        imports: code.imports(),
        sdk: description.sdk,
        tasks: description.tasks,
        initial_memory,
        stack: stack_of(&wasm),
        heap: (initial_memory as u64).saturating_sub(data_end(&wasm)),
        cleanup: prepared.has_cleanup(),
    })
}

/// Grants that link anything: `describe` runs without any of them, and nothing else is called.
fn everything() -> anyhow::Result<Arc<Grants>> {
    Ok(Arc::new(Grants {
        http: Arc::new(AllowList::parse(["https://example.invalid"])?),
        submit: vec![TaskPattern::new("*")?],
        ..Grants::default()
    }))
}

/// The stack of the first core module: where its stack pointer starts, since Rust lays its stack out first.
fn stack_of(wasm: &[u8]) -> Option<u64> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::GlobalSection(globals) = payload.ok()? {
            let first = globals.into_iter().next()?.ok()?;
            return (first.ty.mutable && first.ty.content_type == ValType::I32)
                .then(|| constant(&first.init_expr))
                .flatten();
        }
    }
    None
}

/// Where the data of the first core module that has any ends in its memory. Data that starts as zeros is not in the file.
fn data_end(wasm: &[u8]) -> u64 {
    let parts = Parser::new(0).parse_all(wasm).map_while(Result::ok);
    let data = parts.into_iter().find_map(|part| match part {
        Payload::DataSection(data) => Some(data),
        _ => None,
    });
    let end = |data: Data<'_>| match data.kind {
        DataKind::Active { offset_expr, .. } => Some(constant(&offset_expr)? + data.data.len() as u64),
        DataKind::Passive => None,
    };
    data.into_iter().flatten().map_while(Result::ok).filter_map(end).max().unwrap_or_default()
}

fn constant(expression: &ConstExpr<'_>) -> Option<u64> {
    match expression.get_operators_reader().read().ok()? {
        Operator::I32Const { value } => u64::try_from(value).ok(),
        _ => None,
    }
}

impl Examined {
    /// Interfaces that only an operator's grant opens, by the key of the grant.
    pub(crate) fn grants_needed(&self) -> Vec<&'static str> {
        let asks = |prefix: &str| self.imports.iter().any(|import| import.starts_with(prefix));
        [("wasi:http/", "http"), ("rwork:task/submit@", "submit")]
            .into_iter()
            .filter_map(|(prefix, key)| asks(prefix).then_some(key))
            .collect()
    }

    /// What would make it slow.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.heap < HEAP_MIN {
            warnings.push(format!(
                "its heap is born with {} and will grow at each invocation; link it with `--initial-heap=65536`, as \
                 `rwork build` does",
                show_bytes(self.heap)
            ));
        }
        if let Some(stack) = self.stack.filter(|stack| *stack > STACK_MAX) {
            warnings.push(format!(
                "its stack takes {}; link it with `-zstack-size=131072`, as `rwork build` does",
                show_bytes(stack)
            ));
        }
        warnings
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        json!({
            "path": self.path,
            "size_bytes": self.size,
            "digest": self.digest,
            "sdk": self.sdk,
            "initial_memory_bytes": self.initial_memory,
            "stack_bytes": self.stack,
            "heap_bytes": self.heap,
            "cleanup": self.cleanup,
            "imports": self.imports,
            "grants_needed": self.grants_needed(),
            "tasks": self.tasks.iter().map(task_document).collect::<Vec<_>>(),
            "warnings": self.warnings(),
        })
    }

    /// For people.
    pub(crate) fn print(&self, printer: &Printer) {
        printer.line(printer.tint(Tone::Strong, self.path.display()));
        let mut pairs = vec![
            ("size".to_owned(), show_bytes(self.size as u64)),
            ("digest".to_owned(), self.digest.clone()),
            ("sdk".to_owned(), tame(&self.sdk)),
            ("memory".to_owned(), format!("{} at start", show_bytes(self.initial_memory as u64))),
        ];
        if let Some(stack) = self.stack {
            pairs.push(("stack".to_owned(), show_bytes(stack)));
        }
        let needed = self.grants_needed();
        let needed = if needed.is_empty() { "none".to_owned() } else { needed.join(", ") };
        pairs.push(("grants".to_owned(), needed));
        printer.pairs(&pairs);
        printer.line(printer.tint(Tone::Faint, "imports"));
        for import in &self.imports {
            printer.line(format!("  {}", tame(import)));
        }
        printer.line(printer.tint(Tone::Faint, "tasks"));
        for task in &self.tasks {
            let summary =
                if task.summary.is_empty() { String::new() } else { format!("  {}", tame(&task.summary)) };
            printer.line(format!("  {}{summary}", tame(&task.name)));
        }
        for warning in self.warnings() {
            printer.warning(warning);
        }
    }
}

fn task_document(task: &TaskDeclaration) -> Value {
    let options: Value = serde_json::from_str(&task.options).unwrap_or(Value::Null);
    json!({ "name": task.name, "summary": task.summary, "options": options })
}
