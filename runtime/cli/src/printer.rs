//! The one place that writes to the terminal: results on stdout, everything else on stderr.
//!
//! Colour only where a terminal reads it. With `--json` stdout gets exactly one JSON document and nothing else.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this module is where printing happens")]

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::Color;
use crate::failure::hints_of;

/// Red: what failed.
const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Cyan: what to do.
const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// Dimmed: what matters less.
const FAINT: Style = Style::new().dimmed();
/// Bold: what matters.
const STRONG: Style = Style::new().bold();

/// Smooth enough to be seen as moving.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// How much a text matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// More.
    Strong,
    /// Less.
    Faint,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// Something is off.
    Warn,
}

/// The way to the terminal. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    color_out: bool,
    color_err: bool,
}

impl Printer {
    pub(crate) fn new(json: bool, color: Color, quiet: bool) -> Self {
        let (color_out, color_err) = match color {
            Color::Always => (true, true),
            Color::Never => (false, false),
            Color::Auto => (
                AutoStream::choice(&io::stdout()) != ColorChoice::Never,
                AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            ),
        };
        Self { json, quiet, color_out, color_err }
    }

    /// Whether one JSON document is wanted.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether a person reads stdout.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether a person reads stderr and may be asked: stdin is a terminal too.
    pub(crate) fn interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether stderr may be coloured (for the log).
    pub(crate) fn stderr_colored(&self) -> bool {
        self.color_err
    }

    /// One line of result on stdout.
    pub(crate) fn line(&self, text: impl Display) {
        // A reader that has gone (`| head`) is not an error of ours: nothing can be told to it.
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    /// Bytes on stdout, as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// One JSON document on stdout.
    ///
    /// # Errors
    /// When the value can't be written as JSON.
    pub(crate) fn document(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?);
        Ok(())
    }

    /// Something to know, on stderr; nothing with `--quiet`.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Something off, on stderr.
    pub(crate) fn warning(&self, text: impl Display) {
        let label = paint(self.color_err, AnsiColor::Yellow.on_default().bold(), "warning:");
        let _ = writeln!(io::stderr().lock(), "{label} {text}");
    }

    /// One line on stderr that `--quiet` does not silence: it is what was asked for.
    pub(crate) fn complaint(&self, text: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Names and values on stdout, the values below each other.
    pub(crate) fn pairs(&self, pairs: &[(String, String)]) {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in pairs {
            self.line(format!("{}  {value}", self.tint(Tone::Faint, format!("{name:<width$}"))).trim_end());
        }
    }

    /// A table on stdout: bold head, columns aligned, no frame.
    pub(crate) fn table(&self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(head.iter().copied());
        table.add_rows(rows);
        for (place, line) in table.lines().enumerate() {
            // Without a frame, comfy-table leaves a space on the left and blanks up to the right edge.
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
            self.line(if place == 0 { self.tint(Tone::Strong, line) } else { line.to_owned() });
        }
    }

    /// Text for stdout in a tone, coloured if stdout is.
    pub(crate) fn tint(&self, tone: Tone, text: impl Display) -> String {
        paint(self.color_out, style(tone), text)
    }

    /// Text for stderr in a tone, coloured if stderr is.
    pub(crate) fn tint_note(&self, tone: Tone, text: impl Display) -> String {
        paint(self.color_err, style(tone), text)
    }

    /// An error with its causes and hints, once, on stderr.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let _ = io::stderr().lock().write_all(self.render_error(error).as_bytes());
    }

    fn render_error(&self, error: &anyhow::Error) -> String {
        let mut text = format!("{} {error}\n", paint(self.color_err, ERROR, "error:"));
        for cause in error.chain().skip(1) {
            let _ = writeln!(text, "  {} {cause}", paint(self.color_err, FAINT, "caused by:"));
        }
        for hint in hints_of(error) {
            let _ = writeln!(text, "{} {hint}", paint(self.color_err, HINT, "hint:"));
        }
        text
    }

    /// A line on a terminal that moves while something is waited for; nothing anywhere else.
    pub(crate) fn spinner(&self) -> Spinner {
        let shown = !self.quiet && !self.json && io::stderr().is_terminal();
        Spinner(shown.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(SPINNER_TICK);
            bar.set_message("waiting");
            bar
        }))
    }

    /// Asks a person; anything but `y` or `yes` is no.
    ///
    /// # Errors
    /// When stdin can't be read.
    pub(crate) fn ask(&self, question: impl Display) -> anyhow::Result<bool> {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// What moves while something is waited for; gone when dropped.
#[derive(Debug)]
pub(crate) struct Spinner(Option<ProgressBar>);

impl Spinner {
    /// Shows a line, already tame.
    pub(crate) fn say(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(text.to_owned());
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Text from a guest or a message, safe for a terminal: control characters are escaped, line breaks and tabs stay.
pub(crate) fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' && character != '\t' {
            tamed.extend(character.escape_default());
        } else {
            tamed.push(character);
        }
    }
    tamed
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Strong => STRONG,
        Tone::Faint => FAINT,
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Bad => AnsiColor::Red.on_default(),
        Tone::Warn => AnsiColor::Yellow.on_default(),
    }
}

fn paint(color: bool, style: Style, text: impl Display) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn an_error_is_printed_with_its_causes_and_hints() {
        let printer = Printer::new(false, Color::Never, false);
        let error = Failure::usage("outer").hint("do this").because(anyhow::anyhow!("inner"));
        assert_eq!(printer.render_error(&error.into()), "error: outer\n  caused by: inner\nhint: do this\n");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(tame("a\x1b[31mb\r\nc\td"), "a\\u{1b}[31mb\\r\nc\td");
    }
}
