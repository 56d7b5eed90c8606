//! The table: a figure, its spread, its bound.

use serde_json::{Value, json};

use super::stats::Spread;
use crate::printer::{Printer, Tone};

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

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::None => true,
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    unit: &'static str,
    spread: Spread,
    bound: Bound,
}

/// Every figure of a run.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<(String, String)>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(machine: Vec<(String, String)>) -> Self {
        Self { machine, rows: Vec::new() }
    }

    /// Adds a figure from its rounds.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        rounds: Vec<f64>,
        bound: Bound,
    ) {
        self.rows.push(Row { name: name.into(), unit, spread: Spread::of(rounds), bound });
    }

    /// Whether every bound holds for the median.
    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.bound.is_met(row.spread.median))
    }

    /// For people, or for programs with `--json`.
    pub(crate) fn print(&self, printer: &Printer) -> anyhow::Result<()> {
        if printer.json() {
            return printer.document(&self.document());
        }
        printer.pairs(&self.machine);
        printer.line("");
        printer.table(
            &["FIGURE", "MEDIAN", "LOW – HIGH", "UNIT", "BOUND"],
            self.rows.iter().map(|row| line(row, printer)),
        );
        Ok(())
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let rows: Vec<Value> = self.rows.iter().map(document).collect();
        json!({ "machine": machine, "figures": rows })
    }
}

fn line(row: &Row, printer: &Printer) -> Vec<String> {
    let Spread { median, low, high } = row.spread;
    let met = row.bound.is_met(median);
    let bound = match row.bound {
        Bound::None => String::new(),
        Bound::AtLeast(bound) => format!("≥ {} {}", number(bound), mark(met)),
        Bound::AtMost(bound) => format!("≤ {} {}", number(bound), mark(met)),
    };
    let bound = printer.tint(if met { Tone::Good } else { Tone::Bad }, bound);
    let range = format!("{} – {}", number(low), number(high));
    vec![row.name.clone(), number(median), range, row.unit.to_owned(), bound]
}

fn mark(met: bool) -> &'static str {
    if met { "ok" } else { "MISSED" }
}

/// Three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn document(row: &Row) -> Value {
    let (at_least, at_most) = match row.bound {
        Bound::None => (None, None),
        Bound::AtLeast(bound) => (Some(bound), None),
        Bound::AtMost(bound) => (None, Some(bound)),
    };
    json!({
        "name": row.name,
        "unit": row.unit,
        "median": row.spread.median,
        "low": row.spread.low,
        "high": row.spread.high,
        "at_least": at_least,
        "at_most": at_most,
        "met": row.bound.is_met(row.spread.median),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(123_456.7), "123,457");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.456), "0.46");
    }

    #[test]
    fn a_missed_bound_is_seen() {
        let mut report = Report::new(Vec::new());
        report.add("a", "ms", vec![1.0, 3.0, 2.0], Bound::AtMost(2.0));
        assert!(report.all_met());
        report.add("b", "/s", vec![1.0], Bound::AtLeast(2.0));
        assert!(!report.all_met());
    }
}
