//! `rwork new`: a plugin that builds and passes its tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rwork_plugin::PluginId;

use crate::context::Context;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  rwork new greeting
  rwork new plugins/greeting --name hello";

/// The files of a new plugin: path, and text in which `%NAME%`, `%SDK%` and `%WORKSPACE%` are filled in.
const TEMPLATE: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("new/template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("new/template/lib.rs.in")),
    (".cargo/config.toml", include_str!("new/template/config.toml.in")),
    (".gitignore", include_str!("new/template/gitignore.in")),
    ("plugin.toml", include_str!("new/template/plugin.toml.in")),
];

/// Where the SDK stood when this binary was built from a checkout.
const SDK_OF_CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk");

/// Arguments of `rwork new`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder to make; its name is the plugin's
    path: PathBuf,
    /// Another name for the plugin
    #[arg(long)]
    name: Option<String>,
    /// Folder of the `rwork` SDK crate to depend on [default: the checkout this command was built from, else crates.io]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// Writes the template.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let name = plugin_name(&args)?;
    if args.path.exists() && fs::read_dir(&args.path).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("`{}` exists and is not empty", args.path.display());
        return Err(Failure::usage(message).hint("choose another name").into());
    }
    let values = [
        ("%NAME%", name.clone()),
        ("%SDK%", sdk_dependency(args.sdk.as_deref())?),
        ("%WORKSPACE%", workspace_table(&args.path).to_owned()),
    ];
    for (file, template) in TEMPLATE {
        let text = values.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value));
        write(&args.path.join(file), &text)?;
    }
    if context.printer.json() {
        context.printer.document(&serde_json::json!({ "name": name, "path": args.path }))?;
    } else {
        let folder = args.path.display();
        context.printer.line(format!("made the plugin `{name}` in {folder}"));
        context.printer.note(format!(
            "next:\n  cd {folder}\n  cargo test\n  rwork build\n  rwork run --plugins . &\n  rwork call {module}.hello World --wait",
            module = name.replace('-', "_")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn plugin_name(args: &Args) -> anyhow::Result<String> {
    let stem = args.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or(stem).unwrap_or_default();
    let checked = PluginId::new(&name).map_err(|error| {
        Failure::usage(format!("`{name}` can't be a plugin's name"))
            .hint("give another with `--name`")
            .because(error)
    })?;
    if name.starts_with(|first: char| first.is_ascii_digit()) || !name.is_ascii() {
        let message = format!("`{name}` can't be the name of a Rust package");
        return Err(Failure::usage(message)
            .hint("give another with `--name`, beginning with a letter")
            .into());
    }
    Ok(checked.as_str().to_owned())
}

/// The right side of `rwork = …`.
fn sdk_dependency(given: Option<&Path>) -> anyhow::Result<String> {
    let folder = match given {
        Some(folder) if folder.join("Cargo.toml").is_file() => Some(folder.canonicalize()?),
        Some(folder) => {
            let message = format!("`{}` is not the SDK: it has no Cargo.toml", folder.display());
            return Err(Failure::usage(message).into());
        }
        None => Path::new(SDK_OF_CHECKOUT).canonicalize().ok(),
    };
    Ok(match folder {
        Some(folder) => format!("{{ path = {:?} }}", folder.to_string_lossy()),
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
    })
}

/// Inside somebody's workspace a package must say that it is its own.
fn workspace_table(path: &Path) -> &'static str {
    let start = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = start.ancestors().skip(1).map(|folder| folder.join("Cargo.toml"));
    let inside = above
        .filter_map(|manifest| fs::read_to_string(manifest).ok())
        .any(|text| text.contains("[workspace"));
    if inside {
        "\n# Apart from the workspace around it; delete this line to join it as a member.\n[workspace]\n"
    } else {
        ""
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = |error| Failure::failed(format!("failed to write `{}`", path.display())).because(error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)?;
    Ok(())
}
