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

/// Every constant and field that docs/limits.md names exists in the sources.
fn constants() -> Vec<String> {
    let page = Page::read("docs/limits.md");
    let mut sources = String::new();
    for folder in ["runtime", "sdk"] {
        read_all(&root().join(folder), &mut sources);
    }
    let mut wrong = Vec::new();
    for (line, cells) in page.rows() {
        let code = cells.last().unwrap().split('`').skip(1).step_by(2);
        for name in code.filter_map(|code| code.rsplit("::").next()) {
            let constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            let field = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let declared = (constant && sources.contains(&format!("const {name}:")))
                || (field && sources.contains(&format!("{name}:")))
                || name.starts_with("--");
            if !declared {
                wrong.push(format!("{}: there is no `{name}` in the sources", page.at(line)));
            }
        }
    }
    wrong
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
