//! What pages say in tables and lists, against what the binary and the sources say.

use std::fs;
use std::path::Path;

use rwork_tests::binary::rwork_in;
use rwork_tests::guests::root;
use serde_json::Value;

use super::page::Page;

/// Settings whose default depends on the machine or on another setting, so that the page describes it.
const DESCRIBED: [&str; 5] =
    ["result_backend", "task_queues", "worker_concurrency", "worker_max_in_flight", "plugins_cache_dir"];

/// Rows of docs/limits.md that are settings of the worker: the first cell's beginning, the setting.
const LIMITS: [(&str, &str); 3] = [
    ("hard time", "task_time_limit"),
    ("soft time", "task_soft_time_limit"),
    ("memory: all linear memories", "task_memory_limit"),
];

/// What is wrong with the pages.
pub(super) fn check() -> Vec<String> {
    let settings = settings();
    let mut wrong = commands();
    wrong.extend(configuration(&settings));
    wrong.extend(limits(&settings));
    wrong.extend(task_options());
    wrong.extend(constants());
    wrong
}

/// Name and built-in value of each setting, as `rwork config` prints them.
fn settings() -> Vec<(String, String)> {
    let place = tempfile::tempdir().unwrap();
    let output = rwork_in(place.path()).args(["config", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = document["settings"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    settings.iter().map(|setting| (text(&setting["key"]), text(&setting["value"]))).collect()
}

/// Every command and every command below a command is on docs/cli.md.
fn commands() -> Vec<String> {
    let page = Page::read("docs/cli.md");
    let mut wrong = Vec::new();
    for command in listed(&[]) {
        if !page.text.contains(&format!("rwork {command}")) {
            wrong.push(format!("docs/cli.md does not mention `rwork {command}`"));
        }
        for below in listed(&[&command]) {
            let word = |c: char| !c.is_ascii_alphanumeric();
            if !page.text.split(word).any(|found| found == below) {
                wrong.push(format!("docs/cli.md does not mention `rwork {command} {below}`"));
            }
        }
    }
    wrong
}

fn listed(above: &[&str]) -> Vec<String> {
    let output = rwork_in(Path::new("/")).args(above).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Every setting is in the table of docs/configuration.md with its default, and no other is.
fn configuration(settings: &[(String, String)]) -> Vec<String> {
    let page = Page::read("docs/configuration.md");
    let rows = page.rows();
    let mut wrong = Vec::new();
    for (key, value) in settings {
        let wanted = format!("`{key}`");
        let Some((line, cells)) = rows.iter().find(|(_, cells)| cells[0] == wanted) else {
            wrong.push(format!("docs/configuration.md does not have the setting `{key}`"));
            continue;
        };
        let shown = cells[1].trim_matches('`');
        let same = if value.is_empty() { shown == "none" } else { shown == value };
        if !same && !DESCRIBED.contains(&key.as_str()) {
            wrong.push(format!("{}: the default of `{key}` is `{value}`, not `{shown}`", page.at(*line)));
        }
    }
    for (line, cells) in &rows {
        let key = cells[0].trim_matches('`');
        if key != "key" && !settings.iter().any(|(known, _)| known == key) {
            wrong.push(format!("{}: there is no setting `{key}`", page.at(*line)));
        }
    }
    wrong
}

/// The defaults in docs/limits.md are those of the settings.
fn limits(settings: &[(String, String)]) -> Vec<String> {
    let page = Page::read("docs/limits.md");
    let mut wrong = Vec::new();
    for (start, key) in LIMITS {
        let row = page.rows().into_iter().find(|(_, cells)| cells[0].starts_with(start));
        let (line, cells) = row.unwrap_or_else(|| panic!("docs/limits.md has no row `{start}`"));
        let (_, value) = settings.iter().find(|(known, _)| known == key).unwrap();
        let shown = cells[1].split(';').next().unwrap_or_default();
        if plain(shown) != plain(value) {
            wrong.push(format!("{}: the default of `{key}` is `{value}`, not `{shown}`", page.at(line)));
        }
    }
    wrong
}

/// `30 min` → `1800`, `none` → `0`: as `rwork config` prints it.
fn plain(shown: &str) -> String {
    match shown.split_once(" min") {
        Some((minutes, _)) => (minutes.parse::<u64>().unwrap_or_default() * 60).to_string(),
        None if shown == "none" => "0".to_owned(),
        None => shown.to_owned(),
    }
}

/// Every option of a task is on docs/plugins.md.
fn task_options() -> Vec<String> {
    let page = Page::read("docs/plugins.md");
    let source = fs::read_to_string(root().join("runtime/plugin/src/options.rs")).unwrap();
    let (_, rest) = source.split_once("pub struct TaskOptions(").unwrap();
    let (fields, _) = rest.split_once("\n    }\n").unwrap();
    let names: Vec<&str> = fields
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .filter_map(|line| line.split_once(": ").map(|(name, _)| name))
        .collect();
    assert!(names.contains(&"max_retries") && names.contains(&"cleanup"), "{names:?}");
    let missing = names.iter().filter(|name| !page.text.contains(&format!("`{name}`")));
    missing.map(|name| format!("docs/plugins.md does not have the task option `{name}`")).collect()
}

/// Every constant and field that docs/limits.md names exists in the sources, and the constants have the values shown.
fn constants() -> Vec<String> {
    let page = Page::read("docs/limits.md");
    let mut sources = String::new();
    for folder in ["runtime", "sdk"] {
        read_all(&root().join(folder), &mut sources);
    }
    let mut wrong = Vec::new();
    for (line, cells) in page.rows() {
        let code = cells.last().unwrap().split('`').skip(1).step_by(2);
        for name in code.filter_map(|code| code.rsplit("::").next()).filter(|name| !name.starts_with("--")) {
            if name.chars().any(|c| c.is_ascii_lowercase()) {
                if !sources.contains(&format!("{name}:")) {
                    wrong.push(format!("{}: there is no `{name}` in the sources", page.at(line)));
                }
                continue;
            }
            let values = values(&sources, name);
            if !values.iter().any(|value| cells[1].contains(value.as_str())) {
                wrong.push(format!("{}: `{name}` is {values:?}, not `{}`", page.at(line), cells[1]));
            }
        }
    }
    wrong
}

/// What the constants of a name are, as a page shows them.
fn values(sources: &str, name: &str) -> Vec<String> {
    let start = format!("const {name}: ");
    let declarations = sources.split(start.as_str()).skip(1);
    let values =
        declarations.filter_map(|rest| rest.split_once(';')?.0.split_once('=')).map(|(_, value)| value);
    values.filter_map(|value| evaluate(value.trim())).map(shown).collect()
}

/// `1_024`, `16 << 20`.
fn evaluate(expression: &str) -> Option<u64> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    match expression.split_once("<<") {
        Some((number_text, shift)) => Some(number(number_text)? << number(shift)?),
        None => number(expression),
    }
}

/// Powers of 1024 above one as bytes, the rest with commas between thousands.
fn shown(value: u64) -> String {
    match value {
        _ if value >= 1 << 20 && value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
        _ if value > 1 << 10 && value.is_multiple_of(1 << 10) => format!("{} KiB", value >> 10),
        1_000.. => format!("{},{:03}", value / 1_000, value % 1_000),
        _ => value.to_string(),
    }
}

#[test]
fn constants_are_read() {
    let sources = "pub const A_MAX: usize = 8 << 10;\nconst A_MAX: u32 = 1_024;\nconst B: usize = 16 << 20;";
    assert_eq!(values(sources, "A_MAX"), ["8 KiB", "1,024"]);
    assert_eq!(values(sources, "B"), ["16 MiB"]);
    assert_eq!(values(sources, "C"), [""; 0]);
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
