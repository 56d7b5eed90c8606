//! The released package against the one that stands in `wit/`: what a compiled plugin depends on may not change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rwork_tests::guests::root;
use wit_parser::{
    Function, FunctionKind, Handle, InterfaceId, Param, Resolve, Stability, Type, TypeDefKind, TypeId,
    TypeOwner, WorldItem,
};

/// Each item of a package by its full name, with everything that a compiled plugin depends on. `exports` are the functions
/// and types of what a plugin exports: there, even an addition would break it.
#[derive(Debug, Default)]
struct Package {
    items: BTreeMap<String, String>,
    exported: Vec<String>,
}

/// Reads `rwork:task` in a folder, without regard to its version.
fn read(folder: &Path) -> anyhow::Result<Package> {
    let mut resolve = Resolve::default();
    let (id, _) = resolve.push_path(folder)?;
    let mut package = Package::default();
    for (name, interface) in &resolve.packages[id].interfaces {
        let reader = Reader { resolve: &resolve };
        package.put(format!("interface {name}"), stability(&resolve.interfaces[*interface].stability));
        for (kind, text) in reader.interface(*interface) {
            package.put(format!("{name}.{kind}"), text);
        }
    }
    for (name, world) in &resolve.packages[id].worlds {
        let (reader, world) = (Reader { resolve: &resolve }, &resolve.worlds[*world]);
        package.put(format!("world {name}"), stability(&world.stability));
        for (direction, items) in [("imports", &world.imports), ("exports", &world.exports)] {
            for item in items.values() {
                let WorldItem::Interface { id, .. } = item else {
                    panic!("worlds hold interfaces only: {item:?}")
                };
                let interface = reader.interface_name(*id);
                if direction == "exports" {
                    package.exported.push(interface.clone());
                }
                package.put(format!("world {name} {direction} {interface}"), String::new());
            }
        }
    }
    Ok(package)
}

impl Package {
    fn put(&mut self, name: String, text: String) {
        assert!(self.items.insert(name.clone(), text).is_none(), "{name} twice");
    }

    /// Whether something new would have to be in a plugin that is compiled already.
    fn demands(&self, name: &str) -> bool {
        self.exported.iter().any(|interface| name.starts_with(&format!("{interface}.")))
            || name.split_once(" exports ").is_some_and(|(world, _)| self.items.contains_key(world))
    }
}

struct Reader<'a> {
    resolve: &'a Resolve,
}

impl Reader<'_> {
    fn interface(&self, id: InterfaceId) -> Vec<(String, String)> {
        let interface = &self.resolve.interfaces[id];
        let types = interface.types.iter().map(|(name, id)| (name.clone(), self.definition(*id)));
        let functions =
            interface.functions.iter().map(|(name, function)| (name.clone(), self.function(function)));
        types.chain(functions).collect()
    }

    fn function(&self, function: &Function) -> String {
        let kind = match function.kind {
            FunctionKind::Freestanding => "func",
            _ => panic!("{} is a kind of function that this comparison does not know", function.name),
        };
        let parameter = |Param { name, ty, .. }: &Param| format!("{name}: {}", self.reference(ty));
        let parameters: Vec<_> = function.params.iter().map(parameter).collect();
        let result = self.optional(function.result.as_ref());
        format!("{kind}({}) -> {result} {}", parameters.join(", "), stability(&function.stability))
    }

    fn definition(&self, id: TypeId) -> String {
        let definition = &self.resolve.types[id];
        format!("{} {}", self.kind(&definition.kind), stability(&definition.stability))
    }

    /// A type as it is defined; the order of fields and cases is part of it.
    fn kind(&self, kind: &TypeDefKind) -> String {
        let braces = |word: &str, lines: Vec<String>| format!("{word} {{ {} }}", lines.join(", "));
        match kind {
            TypeDefKind::Record(record) => {
                let fields = record
                    .fields
                    .iter()
                    .map(|field| format!("{}: {}", field.name, self.reference(&field.ty)));
                braces("record", fields.collect())
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant
                    .cases
                    .iter()
                    .map(|case| format!("{}({})", case.name, self.optional(case.ty.as_ref())));
                braces("variant", cases.collect())
            }
            TypeDefKind::Enum(cases) => {
                braces("enum", cases.cases.iter().map(|case| case.name.clone()).collect())
            }
            TypeDefKind::Flags(flags) => {
                braces("flags", flags.flags.iter().map(|flag| flag.name.clone()).collect())
            }
            TypeDefKind::Tuple(tuple) => {
                braces("tuple", tuple.types.iter().map(|ty| self.reference(ty)).collect())
            }
            TypeDefKind::Option(ty) => format!("option<{}>", self.reference(ty)),
            TypeDefKind::List(ty) => format!("list<{}>", self.reference(ty)),
            TypeDefKind::Result(result) => {
                let [ok, err] = [&result.ok, &result.err].map(|ty| self.optional(ty.as_ref()));
                format!("result<{ok}, {err}>")
            }
            TypeDefKind::Handle(Handle::Own(id)) => format!("own<{}>", self.reference(&Type::Id(*id))),
            TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", self.reference(&Type::Id(*id))),
            TypeDefKind::Type(ty) => self.reference(ty),
            other => panic!("{} is a kind of type that this comparison does not know", other.as_str()),
        }
    }

    fn optional(&self, ty: Option<&Type>) -> String {
        ty.map_or_else(|| "_".to_owned(), |ty| self.reference(ty))
    }

    /// A type as it is named where it is used.
    fn reference(&self, ty: &Type) -> String {
        let Type::Id(id) = ty else { return format!("{ty:?}") };
        let definition = &self.resolve.types[*id];
        match (&definition.name, definition.owner) {
            (Some(name), TypeOwner::Interface(owner)) => format!("{}.{name}", self.interface_name(owner)),
            _ => self.kind(&definition.kind),
        }
    }

    /// Without the package's own name and version, which is what differs between two releases.
    fn interface_name(&self, id: InterfaceId) -> String {
        let interface = &self.resolve.interfaces[id];
        let name = interface.name.clone().unwrap();
        let package = &self.resolve.packages[interface.package.unwrap()].name;
        let own = (package.namespace.as_str(), package.name.as_str()) == ("rwork", "task");
        if own { name } else { self.resolve.id_of(id).unwrap() }
    }
}

fn stability(stability: &Stability) -> String {
    match stability {
        Stability::Stable { since, deprecated } => {
            let deprecated =
                deprecated.as_ref().map(|since| format!(" deprecated {since}")).unwrap_or_default();
            format!("since {since}{deprecated}")
        }
        other => format!("{other:?}"),
    }
}

/// Everything about `now` that a plugin compiled against `then` would not survive.
fn broken(then: &Package, now: &Package) -> Vec<String> {
    let changed = then.items.iter().filter_map(|(name, text)| match now.items.get(name) {
        None => Some(format!("{name}: gone")),
        Some(other) if other != text => Some(format!("{name}: was `{text}`, is `{other}`")),
        Some(_) => None,
    });
    let added = now.items.keys().filter(|name| !then.items.contains_key(*name) && then.demands(name));
    changed.chain(added.map(|name| format!("{name}: new, and no compiled plugin has it"))).collect()
}

#[test]
fn every_word_of_0_1_0_is_still_there() {
    let (then, now) = (read(&super::released().join("wit")).unwrap(), read(&root().join("wit")).unwrap());
    assert!(then.items.len() > 50, "only {} items were found", then.items.len());
    assert!(then.items.values().all(|text| text.is_empty() || text.contains("since 0.1.0")), "{then:#?}");
    assert_eq!(broken(&then, &now), [] as [&str; 0]);
}

#[test]
fn every_way_to_break_a_compiled_plugin_is_noticed() {
    for (file, from, to, expected) in [
        ("types.wit", "    retryable: bool,\n", "", "types.failure: was"),
        (
            "types.wit",
            "    unlimited,\n    at-most(u32),",
            "    at-most(u32),\n    unlimited,",
            "types.retry-limit: was",
        ),
        ("types.wit", "    ignore,\n", "    ignore,\n    forget,\n", "types.interruption: was"),
        ("types.wit", "type signature = payload;", "type signature = list<u8>;", "types.signature: was"),
        (
            "types.wit",
            "  @since(version = 0.1.0)\n  record rejection",
            "  record rejection",
            "types.rejection: was",
        ),
        ("host.wit", "sleep: func(duration-ms: u64)", "sleep: func(duration-ms: u32)", "limits.sleep: was"),
        (
            "host.wit",
            "  header-names: func() -> list<string>;",
            "  headers: func() -> list<string>;",
            "request.header-names: gone",
        ),
        ("host.wit", "trace, debug, info", "debug, info", "log.level: was"),
        (
            "host.wit",
            "  subscribe: func() -> pollable;",
            "  subscribe: func() -> list<pollable>;",
            "stop.subscribe: was",
        ),
        (
            "plugin.wit",
            "  export handler;",
            "  export handler;\n  @since(version = 0.1.0)\n  export cleanup;",
            "world minimal exports cleanup: new",
        ),
        (
            "plugin.wit",
            "  describe: func() -> description;",
            "  describe: func() -> description;\n  @since(version = 0.2.0)\n  stop: func();",
            "handler.stop: new",
        ),
        ("plugin.wit", "  import submit;", "  import types;", "world plugin imports submit: gone"),
    ] {
        let found = broken(&read(&super::released().join("wit")).unwrap(), &changed(file, from, to));
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn what_grows_as_the_rules_allow_breaks_nothing() {
    for (file, from, to) in [
        (
            "types.wit",
            "  type signature = payload;",
            "  type signature = payload;\n  @since(version = 0.2.0)\n  type other = payload;",
        ),
        (
            "host.wit",
            "  remaining: func() -> time-left;",
            "  remaining: func() -> time-left;\n  @since(version = 0.2.0)\n  extend: func(ms: u64) -> bool;",
        ),
        (
            "host.wit",
            "/// Custom task states",
            "@since(version = 0.2.0)\ninterface kv { get: func(key: string) -> string; }\n/// Custom task states",
        ),
        (
            "plugin.wit",
            "/// The optional export alone",
            "@since(version = 0.2.0)\nworld more { include plugin; export cleanup; }\n/// The optional export alone",
        ),
        ("plugin.wit", "package rwork:task@0.1.0;", "package rwork:task@0.1.0;\n// A comment is no change."),
    ] {
        let found = broken(&read(&super::released().join("wit")).unwrap(), &changed(file, from, to));
        assert_eq!(found, [] as [&str; 0], "{to}");
    }
}

/// The released package as a later version, with one text replaced by another.
fn changed(file: &str, from: &str, to: &str) -> Package {
    let released = super::released().join("wit");
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir_all(copy.path().join("deps/io")).unwrap();
    for name in ["types.wit", "host.wit", "plugin.wit", "deps/io/poll.wit"] {
        let mut text = fs::read_to_string(released.join(name)).unwrap();
        if name == file {
            assert!(text.contains(from), "{file} does not contain `{from}`");
            text = text.replacen(from, to, 1);
        }
        let text = text.replacen("package rwork:task@0.1.0;", "package rwork:task@0.2.0;", 1);
        fs::write(copy.path().join(name), text).unwrap();
    }
    read(copy.path()).unwrap()
}
