//! Small real components, made of text: a plugin with any tasks and options, and everything that is nearly one.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WORLD: &str = r#"
package rwork:test;
world plugin { include rwork:task/minimal@0.1.0; }
world submitting { include rwork:task/plugin@0.1.0; }
world foreign { export hello: func(); }
"#;

/// Where the text of the description begins in the guest's memory.
const TEXT_AT: usize = 4_096;

/// A plugin whose tasks all return `value`.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    tasks: Vec<(String, String)>,
    value: String,
    options: String,
    describe: &'static str,
    submits: bool,
}

impl Guest {
    pub(super) fn new(task: &str, value: &str) -> Self {
        let tasks = vec![(task.to_owned(), String::new())];
        Self {
            tasks,
            value: value.to_owned(),
            options: String::new(),
            describe: "i32.const 2048",
            submits: false,
        }
    }

    /// One more task.
    pub(super) fn task(mut self, name: &str, options: &str) -> Self {
        self.tasks.push((name.to_owned(), options.to_owned()));
        self
    }

    /// Options of the plugin as a whole.
    pub(super) fn options(mut self, options: &str) -> Self {
        self.options = options.to_owned();
        self
    }

    /// No task at all.
    pub(super) fn without_tasks(mut self) -> Self {
        self.tasks.clear();
        self
    }

    /// `describe` with another body.
    pub(super) fn describe(mut self, body: &'static str) -> Self {
        self.describe = body;
        self
    }

    /// It sends tasks, which has to be granted.
    pub(super) fn submits(mut self) -> Self {
        self.submits = true;
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        encode(&self.module(), if self.submits { "submitting" } else { "plugin" })
    }

    fn module(&self) -> String {
        let mut memory = Memory::default();
        let (content_type, value) = (memory.text("application/json"), memory.text(&self.value));
        let mut rows = Vec::new();
        for (name, options) in &self.tasks {
            rows.extend([memory.text(name), memory.text("What it does."), memory.text(options)].concat());
        }
        let tasks = memory.words(&rows);
        let description =
            [memory.text("wat/1"), memory.text(&self.options), vec![tasks, self.tasks.len()]].concat();
        let (description, text) = (bytes(&description), escaped(&memory.0));
        let import = if self.submits {
            "(import \"rwork:task/submit@0.1.0\" \"send-many\" (func (param i32 i32 i32)))"
        } else {
            ""
        };
        let (describe, params) = (self.describe, "i32 ".repeat(11));
        format!(
            r#"(module
  {import}
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))
  (data (i32.const 2048) "{description}")
  (data (i32.const {TEXT_AT}) "{text}")
  (func (export "rwork:task/handler@0.1.0#describe") (result i32) {describe})
  (func (export "rwork:task/handler@0.1.0#run") (param {params}) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1032) (i32.const {})) (i32.store (i32.const 1036) (i32.const {}))
    (i32.store (i32.const 1040) (i32.const {})) (i32.store (i32.const 1044) (i32.const {}))
    (i32.const 1024)))"#,
            content_type[0], content_type[1], value[0], value[1]
        )
    }
}

/// What lies in the guest's memory from [`TEXT_AT`] on.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Memory {
    /// Address and length.
    fn text(&mut self, text: &str) -> Vec<usize> {
        let at = TEXT_AT + self.0.len();
        self.0.extend(text.as_bytes());
        vec![at, text.len()]
    }

    /// Address of a table of words.
    fn words(&mut self, words: &[usize]) -> usize {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let at = TEXT_AT + self.0.len();
        self.0.extend(words.iter().flat_map(|word| (*word as u32).to_le_bytes()));
        at
    }
}

fn bytes(words: &[usize]) -> String {
    escaped(&words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect::<Vec<u8>>())
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// A component of a world that is no plugin's.
pub(super) fn foreign() -> Vec<u8> {
    encode("(module (func (export \"hello\")))", "foreign")
}

/// What a compiler makes for another target.
pub(super) fn core_module() -> Vec<u8> {
    wat::parse_str("(module (func (export \"hello\")))").unwrap()
}

fn encode(module: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    let package = resolve.push_str("world.wit", WORLD).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}
