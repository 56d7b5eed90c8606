//! Counts words in the files of a granted directory.
//!
//! ```text
//! rwork call text.count_words ./README.md --wait
//! rwork call text.count_words '["./README.md", "./CHANGELOG.md"]' -k top=3 --wait
//! ```
//!
//! A plugin sees no files but those of the directories that the operator grants it in `rwork.toml`:
//!
//! ```toml
//! [plugins.text.grants]
//! dirs = [{ host = "./documents", guest = "/", access = "read" }]
//! ```
//!
//! Files are read line by line, so that their size does not matter, and the task notices its soft time limit on the way.

mod words;

use std::fs::File;
use std::io::{BufRead, BufReader};

use rwork::{Context, TaskError};
use serde::{Deserialize, Serialize};

use words::Counter;

/// How many lines are read between two looks at the clock.
const LINES_BETWEEN_CHECKPOINTS: u64 = 1_000;

/// One path, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// `"./README.md"`
    One(String),
    /// `["./README.md", "./CHANGELOG.md"]`
    Many(Vec<String>),
}

/// What was counted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines of all files.
    lines: u64,
    /// Words of all files.
    words: u64,
    /// Each file, in the order asked for.
    files: Vec<FileReport>,
}

/// What was counted in one file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// As asked for.
    path: String,
    /// How many lines it has.
    lines: u64,
    /// How many words it has.
    words: u64,
    /// The most frequent words with their counts, most frequent first, then by the alphabet.
    frequent: Vec<(String, u64)>,
}

/// Counts the lines and words of one file or several, with the `top` most frequent words of each.
#[rwork::task(soft_time_limit = "4m")]
pub fn count_words(ctx: &Context, paths: Paths, #[default(10)] top: usize) -> Result<Report, TaskError> {
    let paths = match paths {
        Paths::One(path) => vec![path],
        Paths::Many(paths) => paths,
    };
    let mut report = Report { lines: 0, words: 0, files: Vec::new() };
    for path in paths {
        let file = count_file(ctx, &path, top)?;
        report.lines += file.lines;
        report.words += file.words;
        report.files.push(file);
    }
    Ok(report)
}

fn count_file(ctx: &Context, path: &str, top: usize) -> Result<FileReport, TaskError> {
    // The file name belongs into the message: `FileNotFoundError: notes.txt: No such file or directory`.
    let named = |error| TaskError::from(error).context(path);
    let mut reader = BufReader::new(File::open(path).map_err(named)?);
    let (mut lines, mut line, mut counter) = (0_u64, Vec::new(), Counter::default());
    while reader.read_until(b'\n', &mut line).map_err(named)? > 0 {
        if lines.is_multiple_of(LINES_BETWEEN_CHECKPOINTS) {
            ctx.checkpoint()?;
        }
        lines += 1;
        counter.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(FileReport {
        path: path.to_owned(),
        lines,
        words: counter.words(),
        frequent: counter.most_frequent(top),
    })
}

rwork::plugin!(count_words);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rwork::StopReason;
    use rwork::testing::{TestContext, run};

    use super::*;

    const TASK: &str = "text.count_words";

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent.txt").display().to_string();
        let error = count_words(&TestContext::new(TASK), Paths::One(absent.clone()), 1).unwrap_err();
        assert_eq!(error.exc_type(), Some("FileNotFoundError"));
        assert!(error.message().unwrap().starts_with(&absent));
        let folder_itself = folder.path().display().to_string();
        let error = count_words(&TestContext::new(TASK), Paths::One(folder_itself), 1).unwrap_err();
        assert_eq!(error.exc_type(), Some("IsADirectoryError"));
    }

    #[test]
    fn a_message_may_name_one_path_or_several() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.txt"), folder.path().join("b.txt"));
        fs::write(&a, "The cat saw the dog.\nThe end\n").unwrap();
        fs::write(&b, b"caf\xc3\xa9 \xff caf\xc3\x89").unwrap();
        let test = TestContext::new(TASK);
        let one = run(&PLUGIN, &test, &format!("[{a:?}, 2]"), "{}").unwrap();
        let wanted = format!(
            "{{\"lines\":2,\"words\":7,\"files\":[{{\"path\":{a:?},\"lines\":2,\"words\":7,\
             \"frequent\":[[\"the\",3],[\"cat\",1]]}}]}}"
        );
        assert_eq!(one, wanted);
        let both = run(&PLUGIN, &test, &format!("[[{a:?}, {b:?}]]"), "{\"top\": 1}").unwrap();
        assert!(both.starts_with("{\"lines\":3,\"words\":9,"), "{both}");
        assert!(both.ends_with("\"frequent\":[[\"café\",2]]}]}"), "{both}");
    }

    #[test]
    fn the_soft_limit_is_noticed_between_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "one\n").unwrap();
        let test = TestContext::new(TASK).with_stop_after(Duration::ZERO, StopReason::SoftTimeLimit);
        let error = count_words(&test, Paths::One(path.display().to_string()), 1).unwrap_err();
        assert_eq!(error.exc_type(), Some("SoftTimeLimitExceeded"));
    }
}
