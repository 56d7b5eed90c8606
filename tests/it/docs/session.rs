//! `console` blocks: all of a page are one session in one shell, from top to bottom.
//!
//! `$ command` is run, `> more` continues it, and the lines after it are what it prints, on stdout and stderr together.
//! `…` stands for anything within a line, alone on a line for any lines. A command shown without output may print what it
//! likes but must succeed. `rwork run … &` starts a worker; what is shown after it is its log, looked at when the session
//! is over and the worker was told to leave. `make` and `rustup` change the machine: `make` targets must exist, no more.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use rwork_tests::guests::root;

use super::page::Page;
use super::rabbitmq::RabbitMq;
use super::redis::Redis;
use super::stage::{Stage, cargo_turn};
use super::{Block, Kind};

/// Longer than any command takes on a busy machine; only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(180);
/// Stands on a line of its own after what a command printed, with its status.
const MARK: &str = "--8<-- ended with ";

/// One command.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    /// The lines that it prints, without blank ones at the end.
    shown: Vec<String>,
}

/// What a command did.
struct Answer {
    status: String,
    printed: String,
}

/// What is wrong with the blocks.
pub(super) fn check() -> Vec<String> {
    let mut wrong = Vec::new();
    for page in Page::all() {
        let blocks = page.blocks();
        let sessions = blocks.iter().filter(|block| Kind::of(&block.info) == Some(Kind::Session));
        let steps: Vec<Step> = sessions.flat_map(steps).collect();
        let (foreign, own): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|step| installs(&step.command));
        wrong.extend(foreign.iter().flat_map(|step| missing_targets(&page, step)));
        if !own.is_empty() {
            wrong.extend(run(&page, &own));
        }
    }
    wrong
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (text, line) in block.text.lines().zip(block.line + 1..) {
        match (text.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { line, command: command.trim_end().to_owned(), shown: Vec::new() });
            }
            (None, Some(step)) => match text.strip_prefix("> ") {
                Some(more) if step.shown.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => step.shown.push(text.trim_end().to_owned()),
            },
            (None, None) => panic!("line {line}: expected a session to begin with `$ `, got `{text}`"),
        }
    }
    for step in &mut steps {
        while step.shown.last().is_some_and(String::is_empty) {
            step.shown.pop();
        }
    }
    steps
}

/// Whether a command changes the machine, so that no test runs it.
fn installs(command: &str) -> bool {
    ["make ", "rustup "].iter().any(|start| command.starts_with(start))
}

fn missing_targets(page: &Page, step: &Step) -> Vec<String> {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let command = without_comment(&step.command);
    let targets = command.strip_prefix("make ").into_iter().flat_map(str::split_whitespace);
    targets
        .filter(|word| !word.contains('='))
        .filter(|target| !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))))
        .map(|target| format!("{}: the Makefile has no target `{target}`", page.at(step.line)))
        .collect()
}

/// A command without the words for its reader, which stand behind two blanks and a `#`.
fn without_comment(command: &str) -> &str {
    command.split_once("  #").map_or(command, |(command, _)| command).trim_end()
}

/// The command of a worker that is left running.
fn background(command: &str) -> Option<&str> {
    let command = without_comment(command).strip_suffix('&')?;
    (!command.ends_with('&')).then_some(command)
}

fn run(page: &Page, steps: &[Step]) -> Vec<String> {
    let _turn = cargo_turn();
    let stage = Stage::new();
    let (redis, rabbit) = (Redis::of(page), RabbitMq::of(page));
    let to_real = |text: &str| rabbit.to_real(&redis.to_real(text));
    for block in page.blocks() {
        if let Some(Kind::Script(name)) = Kind::of(&block.info) {
            fs::write(stage.path("work").join(name), to_real(&block.text)).unwrap();
        }
    }
    let said = match converse(&stage, &to_real(&script(&stage, steps))) {
        Ok(said) => said,
        Err(said) => return vec![format!("{}: the session hangs after\n{}", page.name, said.join("\n"))],
    };
    let answers = answers(&said);
    assert_eq!(answers.len(), steps.len(), "{}: the shell ended early:\n{}", page.name, said.join("\n"));
    let mut wrong = Vec::new();
    for (index, (step, mut answer)) in steps.iter().zip(answers).enumerate() {
        if background(&step.command).is_some() {
            answer.printed = fs::read_to_string(stage.path("logs").join(index.to_string())).unwrap();
        }
        answer.printed = rabbit.to_shown(&redis.to_shown(&answer.printed));
        if let Some(complaint) = complaint(step, &answer) {
            wrong.push(format!("{}: `{}` {complaint}", page.at(step.line), step.command));
        }
    }
    wrong
}

fn complaint(step: &Step, answer: &Answer) -> Option<String> {
    let printed: Vec<&str> = answer.printed.trim_end().lines().map(str::trim_end).collect();
    let shown: Vec<&str> = step.shown.iter().map(String::as_str).collect();
    if shown.is_empty() {
        return (answer.status != "0").then(|| format!("ended with {}:\n{}", answer.status, answer.printed));
    }
    (!fits(&shown, &printed))
        .then(|| format!("printed\n{}\n-- but shown is\n{}", printed.join("\n"), shown.join("\n")))
}

fn script(stage: &Stage, steps: &[Step]) -> String {
    // The status of a command is that of the next one too, so that a page can show `echo $?`.
    let mut script = format!("exec 2>&1\nended() {{ local s=$?; printf '\\n{MARK}%s\\n' $s; return $s; }}\n");
    for (index, step) in steps.iter().enumerate() {
        match background(&step.command) {
            Some(command) => {
                let log = stage.path("logs").join(index.to_string());
                script.push_str(&format!("{command} >{} 2>&1 &\n", log.display()));
            }
            None => script.push_str(&format!("eval '{}'\n", step.command.replace('\'', "'\\''"))),
        }
        script.push_str("ended\n");
    }
    // Workers end as they do for whoever presses Ctrl-C once.
    script.push_str("for worker in $(jobs -p); do kill -TERM $worker; done 2>/dev/null\nwait\n");
    script
}

/// What the shell printed, by line; an error when it does not come to an end.
fn converse(stage: &Stage, script: &str) -> Result<Vec<String>, Vec<String>> {
    let mut bash = stage.command("bash");
    // A group of its own, so that nothing that it started is left.
    bash.arg("-c").arg(script).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut bash = Group(bash.spawn().unwrap());
    let stdout = BufReader::new(bash.0.stdout.take().unwrap());
    let (send, lines) = channel();
    let reading =
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => said.push(line),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return Err(said),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let _ = reading.join();
    bash.0.wait().unwrap();
    Ok(said)
}

/// A shell and all that it started; killed when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn answers(said: &[String]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut printed = String::new();
    for line in said {
        match line.strip_prefix(MARK) {
            Some(status) => {
                // The mark brings a line break of its own.
                printed.truncate(printed.trim_end_matches('\n').len());
                answers.push(Answer { status: status.to_owned(), printed: std::mem::take(&mut printed) });
            }
            None => {
                printed.push_str(line);
                printed.push('\n');
            }
        }
    }
    answers
}

/// Whether lines are as shown.
fn fits(shown: &[&str], printed: &[&str]) -> bool {
    match (shown, printed) {
        ([], _) => printed.is_empty(),
        ([first, rest @ ..], _) if first.trim() == "…" => {
            (0..=printed.len()).any(|skip| fits(rest, &printed[skip..]))
        }
        ([first, rest @ ..], [line, more @ ..]) => line_fits(first, line) && fits(rest, more),
        ([_, ..], []) => false,
    }
}

fn line_fits(shown: &str, line: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == line };
    let Some(mut left) = line.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(end)
}

#[test]
fn sessions_are_taken_apart() {
    let block =
        Block { line: 4, info: "console".to_owned(), text: "$ a \\\n> b\nc\n> d\n\n$ e &  # x\n".to_owned() };
    assert_eq!(
        steps(&block),
        [
            Step { line: 5, command: "a \\\nb".to_owned(), shown: vec!["c".to_owned(), "> d".to_owned()] },
            Step { line: 10, command: "e &  # x".to_owned(), shown: Vec::new() },
        ]
    );
    assert_eq!((background("e &  # x"), background("a && b"), background("a &&")), (Some("e "), None, None));
}

#[test]
fn an_ellipsis_is_anything() {
    let check =
        |shown: &[&str], printed: &[&str], expect| assert_eq!(fits(shown, printed), expect, "{shown:?}");
    check(&["a"], &["b"], false);
    check(&["a"], &["a", "b"], false);
    check(&["a", "…"], &["b", "a"], false);
    check(&["a … c"], &["a b"], false);
    check(&["a …b…b"], &["a b"], false);
    check(&["a", "…"], &["a"], true);
    check(&["…", "b", "…"], &["a", "b", "c"], true);
    check(&["a … c…", "…"], &["a b c d"], true);
}

#[test]
fn a_wrong_answer_is_noticed() {
    let step = |shown: &[&str]| Step {
        line: 1,
        command: "x".to_owned(),
        shown: shown.iter().map(|line| (*line).to_owned()).collect(),
    };
    let answer = |status: &str| Answer { status: status.to_owned(), printed: "4\n".to_owned() };
    assert!(complaint(&step(&["5"]), &answer("0")).is_some());
    assert!(complaint(&step(&[]), &answer("1")).is_some());
    assert!(complaint(&step(&["4"]), &answer("0")).is_none());
    assert!(complaint(&step(&[]), &answer("0")).is_none());
}
