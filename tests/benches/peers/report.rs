//! The table: a figure, its spread over the rounds, its bound. The same shape as `rwork bench` has, whose file it adds to.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::drain::{self, Drain};
use crate::trips::{self, Trips};

/// A drain beside the edition before: no figure may be more than 5 % worse.
const NOT_SLOWER: f64 = 0.95;

/// Round by round, one by the other.
pub(crate) fn ratio(of: &[f64], by: &[f64]) -> Vec<f64> {
    of.iter().zip(by).map(|(of, by)| of / by).collect()
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Nothing.
    None,
    /// It should be so much or more.
    AtLeast(f64),
    /// It should be so much or less.
    AtMost(f64),
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    unit: &'static str,
    median: f64,
    low: f64,
    high: f64,
    bound: Bound,
}

/// Every figure of a run.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Adds a figure from its rounds.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        mut rounds: Vec<f64>,
        bound: Bound,
    ) {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or_default();
        let (median, low, high) = (at(rounds.len() / 2), at(0), at(rounds.len().saturating_sub(1)));
        self.0.push(Row { name: name.into(), unit, median, low, high, bound });
    }

    /// Adds figures of this edition beside those of the one before, by rounds, where there are any.
    pub(crate) fn add_before(&mut self, broker: &str, drains: [&Vec<Drain>; 2], trips: [&Vec<Trips>; 2]) {
        if drains[1].is_empty() {
            return;
        }
        let [(rate, cpu), (rate_before, cpu_before)] = drains.map(|of| (drain::rates(of), drain::cpu(of)));
        let (trip, trip_before) = (trips::p50(trips[0]), trips::p50(trips[1]));
        let mut add =
            |name: &str, unit, rounds, bound| self.add(format!("{broker}: {name}"), unit, rounds, bound);
        add("to the edition before, drain", "×", ratio(&rate, &rate_before), Bound::AtLeast(NOT_SLOWER));
        add("to the edition before, CPU time", "×", ratio(&cpu, &cpu_before), Bound::None);
        add("to the edition before, round trip", "×", ratio(&trip, &trip_before), Bound::None);
        add("the edition before, drain", "/s", rate_before, Bound::None);
        add("the edition before, CPU time of the worker", "µs", cpu_before, Bound::None);
        add("the edition before, round trip, p50", "ms", trip_before, Bound::None);
    }

    /// Whether every bound holds for the median.
    pub(crate) fn all_met(&self) -> bool {
        self.0.iter().all(Row::is_met)
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let width = self.0.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let mut table =
            format!("\n{:width$} {:>10}  {:>19}  {:4} BOUND", "FIGURE", "MEDIAN", "LOW – HIGH", "UNIT");
        for row in &self.0 {
            let bound = match row.bound {
                Bound::None => String::new(),
                Bound::AtLeast(bound) => format!("≥ {bound} {}", row.mark()),
                Bound::AtMost(bound) => format!("≤ {bound} {}", row.mark()),
            };
            let range = format!("{} – {}", number(row.low), number(row.high));
            let (name, unit) = (&row.name, row.unit);
            // Writing to a string does not fail.
            let _ =
                write!(table, "\n{name:width$} {:>10}  {range:>19}  {unit:4} {bound}", number(row.median));
        }
        table
    }

    /// Adds the figures to the document of `rwork bench`, or begins one.
    pub(crate) fn add_to(&self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let mut document = match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("`{shown}` is no JSON"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({ "figures": [] }),
            Err(error) => return Err(error).with_context(|| format!("failed to read `{shown}`")),
        };
        let figures = document.get_mut("figures").and_then(Value::as_array_mut);
        let figures = figures.with_context(|| format!("expected `{shown}` to have `figures`"))?;
        figures.retain(|figure| {
            let name = figure.get("name").and_then(Value::as_str);
            !self.0.iter().any(|row| Some(row.name.as_str()) == name)
        });
        figures.extend(self.0.iter().map(Row::document));
        std::fs::write(path, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("failed to write `{shown}`"))
    }
}

impl Row {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::None => true,
            Bound::AtLeast(bound) => self.median >= bound,
            Bound::AtMost(bound) => self.median <= bound,
        }
    }

    fn mark(&self) -> &'static str {
        if self.is_met() { "ok" } else { "MISSED" }
    }

    fn document(&self) -> Value {
        let (at_least, at_most) = match self.bound {
            Bound::None => (None, None),
            Bound::AtLeast(bound) => (Some(bound), None),
            Bound::AtMost(bound) => (None, Some(bound)),
        };
        json!({
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "at_least": at_least,
            "at_most": at_most,
            "met": self.is_met(),
        })
    }
}

/// Three digits that matter, or all before the point.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
