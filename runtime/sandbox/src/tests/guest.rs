//! Packs a few lines of WebAssembly text into a plugin.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The parts of WASI that these guests call.
const WASI: &str = r#"
package wasi:cli@0.2.1;
interface stdout { use wasi:io/streams@0.2.1.{output-stream}; get-stdout: func() -> output-stream; }
interface stderr { use wasi:io/streams@0.2.1.{output-stream}; get-stderr: func() -> output-stream; }
interface exit { exit: func(status: result); }
interface environment { get-environment: func() -> list<tuple<string, string>>; }
package wasi:clocks@0.2.1 {
  interface monotonic-clock {
    use wasi:io/poll@0.2.1.{pollable};
    subscribe-duration: func(when: u64) -> pollable;
  }
}
package wasi:io@0.2.1 {
  interface poll { resource pollable { block: func(); ready: func() -> bool; } }
  interface error { resource error; }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream {
      blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
    }
  }
}
package wasi:http@0.2.1 {
  interface types { resource fields { constructor(); } }
}
package wasi:random@0.2.1 {
  interface random { get-random-bytes: func(len: u64) -> list<u8>; }
}
package wasi:keyvalue@0.2.0-draft {
  interface store { open: func(name: string); }
}
"#;

const WORLD: &str = r#"
package rwork:test;
world guest {
  include rwork:task/plugin@0.1.0;
  import wasi:cli/stdout@0.2.1;
  import wasi:cli/stderr@0.2.1;
  import wasi:cli/exit@0.2.1;
  import wasi:cli/environment@0.2.1;
  import wasi:http/types@0.2.1;
  import wasi:random/random@0.2.1;
  import wasi:clocks/monotonic-clock@0.2.1;
  import wasi:keyvalue/store@0.2.0-draft;
}
world guest-with-cleanup { include guest; export rwork:task/cleanup@0.1.0; }
world other { export hello: func(); }
"#;

/// A guest whose `run` has this body: `$ok`, `$args` and `$soft` end it with a value, the arguments, or the failure
/// that the SDK raises at the soft limit.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) run: String,
    pub(super) describe: String,
    /// Imports, which come first.
    pub(super) imports: String,
    /// Further functions, memories, a start function.
    pub(super) items: String,
    /// Body of the cleanup hook, if there is one.
    pub(super) cleanup: Option<String>,
}

impl Guest {
    pub(super) fn new(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            describe: "i32.const 2048".to_owned(),
            imports: String::new(),
            items: String::new(),
            cleanup: None,
        }
    }

    pub(super) fn import(mut self, interface: &str, name: &str, signature: &str) -> Self {
        let id = name.rsplit(['.', ']']).next().unwrap();
        self.imports += &format!("(import \"{interface}\" \"{name}\" (func ${id} {signature}))\n");
        self
    }

    pub(super) fn items(mut self, items: &str) -> Self {
        self.items += items;
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let world = if self.cleanup.is_some() { "guest-with-cleanup" } else { "guest" };
        encode(&self.module(), world)
    }

    fn module(&self) -> String {
        let cleanup = self.cleanup.as_ref().map_or_else(String::new, |body| {
            // An invocation (11 flat values) and a reason (3).
            let params = "i32 ".repeat(14);
            format!("(func (export \"rwork:task/cleanup@0.1.0#cleanup\") (param {params}) {body})")
        });
        let (imports, items, describe, run) = (&self.imports, &self.items, &self.describe, &self.run);
        let params = "i32 ".repeat(11);
        format!(
            r#"(module
  {imports}
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))
  (data (i32.const 3000) "application/json")
  (data (i32.const 3020) "null")
  (data (i32.const 3040) "SoftTimeLimitExceeded")
  (data (i32.const 3070) "[]")
  (data (i32.const 3080) "wat/1")
  (data (i32.const 3090) "guest.run")
  (data (i32.const 3100) "BLOCK" "PANIC")
  (data (i32.const 3110) "\1b[31mboom")
  (data (i32.const 3130) "src/lib.rs:3:5")
  ;; description: sdk, options, one task without summary and options
  (data (i32.const 2048) "\08\0c\00\00\05\00\00\00" "\00\00\00\00\00\00\00\00" "\20\08\00\00\01\00\00\00")
  (data (i32.const 2080) "\12\0c\00\00\09\00\00\00" "\00\00\00\00\00\00\00\00" "\00\00\00\00\00\00\00\00")
  (func $value (param $data i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1032) (i32.const 3000)) (i32.store (i32.const 1036) (i32.const 16))
    (i32.store (i32.const 1040) (local.get $data)) (i32.store (i32.const 1044) (local.get $len))
    (i32.const 1024))
  (func $ok (result i32) (call $value (i32.const 3020) (i32.const 4)))
  (func $soft (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1032) (i32.const 0))
    (i32.store (i32.const 1040) (i32.const 3040)) (i32.store (i32.const 1044) (i32.const 21))
    (i32.store (i32.const 1060) (i32.const 3000)) (i32.store (i32.const 1064) (i32.const 16))
    (i32.store (i32.const 1068) (i32.const 3070)) (i32.store (i32.const 1072) (i32.const 2))
    (i32.const 1024))
  (func (export "rwork:task/handler@0.1.0#describe") (result i32) {describe})
  (func $"rwork:task/handler@0.1.0#run" (export "rwork:task/handler@0.1.0#run") (param {params}) (result i32) {run})
  {cleanup}
  {items})"#
        )
    }
}

/// A component of a world that is no plugin's.
pub(super) fn other_world() -> Vec<u8> {
    encode("(module (func (export \"hello\")))", "other")
}

fn encode(module: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    resolve.push_str("wasi.wit", WASI).unwrap();
    let package = resolve.push_str("world.wit", WORLD).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}
