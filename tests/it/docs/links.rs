//! Links between the pages, and the paths of the repository that they name.

use std::fs;

use rwork_tests::guests::root;

use super::page::Page;

/// What a path of this repository begins with.
const TOPS: [&str; 7] = ["runtime/", "sdk/", "plugins/", "tests/", "wit/", "docs/", ".ci/"];

/// What is wrong with links and paths.
pub(super) fn check() -> Vec<String> {
    let pages = Page::all();
    let mut wrong = Vec::new();
    for page in &pages {
        for (line, text) in page.prose() {
            wrong.extend(links(text).iter().filter_map(|link| broken(page, line, link)));
            wrong.extend(missing_paths(text).map(|path| format!("{}: there is no `{path}`", page.at(line))));
        }
    }
    let readme = pages.iter().find(|page| page.name == "README.md").unwrap();
    for page in pages.iter().filter(|page| page.name != "README.md") {
        if !readme.text.contains(&format!("({})", page.name)) {
            wrong.push(format!("README.md has no link to {}", page.name));
        }
    }
    wrong
}

/// The targets of `[text](target)`, without those inside of code.
fn links(text: &str) -> Vec<String> {
    let outside: String = text.split('`').step_by(2).collect::<Vec<_>>().join("`code`");
    let targets = outside.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

fn broken(page: &Page, line: usize, link: &str) -> Option<String> {
    if link.contains("://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { root().join(&page.name) } else { page.folder().join(path) };
    if !target.exists() {
        return Some(format!("{}: the link `{link}` leads to no file", page.at(line)));
    }
    let text = fs::read_to_string(target).unwrap_or_default();
    let missing = !anchor.is_empty() && !anchors(&text).iter().any(|known| known == anchor);
    missing.then(|| format!("{}: the link `{link}` leads to no heading", page.at(line)))
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Paths in backticks that name nothing. Patterns and placeholders are no paths.
fn missing_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|code| {
        let is_path = TOPS.iter().any(|top| code.starts_with(top))
            && code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c));
        // What cargo or `rwork build` makes is not always there.
        is_path && !code.ends_with(".wasm") && !root().join(code).exists()
    })
}

#[test]
fn links_and_anchors_are_found() {
    assert_eq!(links("see [a](b.md#c), `[x](y)` and [d](e)"), ["b.md#c", "e"]);
    assert_eq!(anchors("# The `sdk`: A-b\n## Soft limit"), ["the-sdk-a-b", "soft-limit"]);
    assert_eq!(
        missing_paths("`runtime/none/src` `runtime/cli` `plugins/*/x`").collect::<Vec<_>>(),
        ["runtime/none/src"]
    );
}
