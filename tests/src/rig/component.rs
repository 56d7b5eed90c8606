//! Small real components made of WebAssembly text: for guests that no language's compiler would make.
//!
//! What is packed into `wit/`'s world `minimal` is a plugin like any other.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The worlds that tests need beside those of `wit/`.
const WORLDS: &str = r#"
package rwork:test;
world plugin { include rwork:task/minimal@0.1.0; }
world curious { include rwork:task/minimal@0.1.0; import wasi:keyvalue/store@0.2.0-draft; }
world foreign { export hello: func(); }
"#;

/// Something that no worker offers.
const KEYVALUE: &str = "package wasi:keyvalue@0.2.0-draft; interface store { open: func(name: string); }";

/// Where the guest's texts begin in its memory.
const TEXT_AT: usize = 4_096;

/// What the canonical ABI passes to `run`: an invocation, flat.
const RUN_PARAMETERS: &str = "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32";

/// A plugin of one task, which returns `null` unless its body says otherwise.
#[derive(Clone, Debug)]
pub struct TextGuest {
    task: String,
    run: String,
    describe: String,
    imports: String,
    items: String,
    world: &'static str,
}

impl TextGuest {
    /// A plugin with this task.
    pub fn new(task: &str) -> Self {
        Self {
            task: task.to_owned(),
            run: "(call $null)".to_owned(),
            describe: "(i32.const 2048)".to_owned(),
            imports: String::new(),
            items: String::new(),
            world: "plugin",
        }
    }

    /// The body of `run`; `$null` ends it well.
    #[must_use]
    pub fn run(mut self, body: &str) -> Self {
        self.run = body.to_owned();
        self
    }

    /// The body of `describe`; the real description is at address 2048.
    #[must_use]
    pub fn describe(mut self, body: &str) -> Self {
        self.describe = body.to_owned();
        self
    }

    /// Further memories and functions, a start function.
    #[must_use]
    pub fn items(mut self, items: &str) -> Self {
        self.items = items.to_owned();
        self
    }

    /// It imports `wasi:keyvalue/store`, which no worker offers.
    #[must_use]
    pub fn imports_keyvalue(mut self) -> Self {
        let store = "wasi:keyvalue/store@0.2.0-draft";
        self.imports = format!("(import \"{store}\" \"open\" (func (param i32 i32)))");
        self.world = "curious";
        self
    }

    /// The component.
    ///
    /// # Panics
    /// When a body does not fit.
    pub fn build(&self) -> Vec<u8> {
        encode(&self.module(), self.world)
    }

    fn module(&self) -> String {
        let mut text = String::new();
        let mut place = |words: &str| {
            let at = TEXT_AT + text.len();
            text.push_str(words);
            [at, words.len()]
        };
        let [json_at, json_len] = place("application/json");
        let [null_at, null_len] = place("null");
        let sdk = place("wat/1");
        let name = place(&self.task);
        let (description, task) = (2_048, 2_080);
        // sdk, options, the list of tasks; the task: its name, summary, options.
        let description_words = words(&[&sdk, &[0, 0], &[task, 1]]);
        let task_words = words(&[&name, &[0, 0], &[0, 0]]);
        let Self { run, describe, imports, items, .. } = self;
        format!(
            r#"(module
  {imports}
  (memory $main (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))
  (data (i32.const {description}) "{description_words}")
  (data (i32.const {task}) "{task_words}")
  (data (i32.const {TEXT_AT}) "{text}")
  (func $null (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1032) (i32.const {json_at})) (i32.store (i32.const 1036) (i32.const {json_len}))
    (i32.store (i32.const 1040) (i32.const {null_at})) (i32.store (i32.const 1044) (i32.const {null_len}))
    (i32.const 1024))
  (func $describe (export "rwork:task/handler@0.1.0#describe") (result i32) {describe})
  (func $run (export "rwork:task/handler@0.1.0#run") (param {RUN_PARAMETERS}) (result i32) {run})
  {items})"#
        )
    }
}

/// A component of a world that is no plugin's.
pub fn foreign() -> Vec<u8> {
    encode("(module (func (export \"hello\")))", "foreign")
}

/// What a compiler makes for another target.
pub fn core_module() -> Vec<u8> {
    wat::parse_str("(module (func (export \"hello\")))").unwrap()
}

/// Little-endian words as a string of WebAssembly text.
fn words(parts: &[&[usize]]) -> String {
    let bytes = parts
        .iter()
        .flat_map(|part| part.iter())
        .flat_map(|word| u32::try_from(*word).unwrap().to_le_bytes());
    bytes.map(|byte| format!("\\{byte:02x}")).collect()
}

fn encode(module: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).unwrap();
    resolve.push_str("keyvalue.wit", KEYVALUE).unwrap();
    let package = resolve.push_str("worlds.wit", WORLDS).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}
