//! Documented by use: every example of README.md and `docs/` is run, and what the pages say in tables is compared with
//! what the binary says.
//!
//! A fenced block is checked by its info string; [`Kind`] is the list. A check collects all that is wrong, each with page
//! and line, so that one run shows every mistake.

mod configurations;
mod guarantees;
mod links;
mod page;
mod rabbitmq;
mod redis;
mod session;
mod sources;
mod stage;
mod tables;

use page::{Block, Page};

/// What a fenced block is, and so how it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// `toml`: an `rwork.toml`, read by the real binary.
    Configuration,
    /// `toml manifest`: a plugin's manifest, read as a worker reads it.
    Manifest,
    /// `rust` or `rust NAME`: a plugin's source, compiled; NAME is the package's. A block with `#[test]` joins the one
    /// before it and is run.
    Source(Option<String>),
    /// `console`: `$ command` lines are run, the lines after each are its output. See [`session`].
    Session,
    /// `python NAME`: a file that the page's sessions use, beside Celery.
    Script(String),
    /// `json`: it parses.
    Json,
    /// `wit`: it parses.
    Wit,
    /// `toml cargo`: what `rwork new` writes, line by line.
    Cargo,
    /// `text` and `rust,ignore`: for people.
    Free,
}

/// The info strings that a block may have, for the error.
const KNOWN: &str =
    "toml, toml manifest, toml cargo, rust, rust NAME, rust,ignore, console, python NAME, json, wit, text";

impl Kind {
    fn of(info: &str) -> Option<Self> {
        let words: Vec<&str> = info.split_whitespace().collect();
        Some(match words.as_slice() {
            ["toml"] => Self::Configuration,
            ["toml", "manifest"] => Self::Manifest,
            ["toml", "cargo"] => Self::Cargo,
            ["text"] | ["rust,ignore"] => Self::Free,
            ["rust"] => Self::Source(None),
            ["rust", name] => Self::Source(Some((*name).to_owned())),
            ["console"] => Self::Session,
            ["python", name] => Self::Script((*name).to_owned()),
            ["json"] => Self::Json,
            ["wit"] => Self::Wit,
            _ => return None,
        })
    }
}

/// Every block of this kind with its page.
fn blocks(wanted: impl Fn(&Kind) -> bool) -> Vec<(Page, Block)> {
    let mut found = Vec::new();
    for page in Page::all() {
        for block in page.blocks() {
            if Kind::of(&block.info).is_some_and(|kind| wanted(&kind)) {
                found.push((page.clone(), block));
            }
        }
    }
    found
}

/// Fails with everything that was found wrong.
#[track_caller]
fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n\n{}\n", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn every_block_says_what_it_is() {
    let mut wrong = Vec::new();
    for page in Page::all() {
        for block in page.blocks().iter().filter(|block| Kind::of(&block.info).is_none()) {
            let place = page.at(block.line);
            wrong.push(format!("{place}: expected one of `{KNOWN}`, got `{}`", block.info));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn json_and_wit_parse() {
    let mut wrong = Vec::new();
    for (page, block) in blocks(|kind| *kind == Kind::Json) {
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&block.text) {
            wrong.push(format!("{}: {error}", page.at(block.line)));
        }
    }
    for (page, block) in blocks(|kind| *kind == Kind::Wit) {
        let own = block.text.lines().any(|line| line.starts_with("package "));
        let text = if own { block.text.clone() } else { format!("package docs:example;\n{}", block.text) };
        if let Err((_, error)) = wit_parser::UnresolvedPackageGroup::parse("example.wit", &text) {
            wrong.push(format!("{}: {error}", page.at(block.line)));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn configurations_are_read() {
    none_wrong(&configurations::check());
}

#[test]
fn sources_compile_and_their_tests_pass() {
    none_wrong(&sources::check());
}

#[test]
fn sessions_answer_what_they_show() {
    none_wrong(&session::check());
}

#[test]
fn links_lead_somewhere() {
    none_wrong(&links::check());
}

#[test]
fn guarantees_are_shown_by_tests() {
    none_wrong(&guarantees::check());
}

#[test]
fn tables_say_what_the_binary_says() {
    none_wrong(&tables::check());
}
