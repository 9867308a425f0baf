//! Medians, ratios, the table and the JSON file.

use std::fmt::Write;
use std::path::Path;

use mars_tests::Result;
use mars_tests::error::Context;
use serde_json::json;

/// One line of the result.
#[derive(Debug, Clone)]
struct Line {
    name: String,
    unit: &'static str,
    bare: Option<f64>,
    mars: f64,
    ratio: Option<f64>,
    runs: usize,
}

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Line>);

/// Middle of the values; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Report {
    /// A comparison: pairs of (bare, mars) made in turn; the ratio is the median of the ratios of the pairs.
    pub(crate) fn compare(&mut self, name: &str, unit: &'static str, pairs: &[(f64, f64)]) {
        let of = |f: fn(&(f64, f64)) -> f64| median(&pairs.iter().map(f).collect::<Vec<_>>());
        let (bare, mars, ratio) = (of(|p| p.0), of(|p| p.1), of(|p| p.1 / p.0));
        let runs = pairs.len();
        let all: Vec<String> = pairs
            .iter()
            .map(|(b, m)| format!("{b:.0}/{m:.0}"))
            .collect();
        let all = all.join(" ");
        println!("{name}: bare {bare:.0} {unit}, mars {mars:.0} {unit}, ratio {ratio:.2} ({all})");
        self.0.push(Line {
            name: name.into(),
            unit,
            bare: Some(bare),
            mars,
            ratio: Some(ratio),
            runs,
        });
    }

    /// A figure of its own.
    pub(crate) fn figure(&mut self, name: &str, unit: &'static str, values: &[f64]) {
        let mars = median(values);
        println!("{name}: {mars:.3} {unit}");
        self.0.push(Line {
            name: name.into(),
            unit,
            bare: None,
            mars,
            ratio: None,
            runs: values.len(),
        });
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text =
            String::from("\nmeasurement              unit       bare       mars   ratio   runs\n");
        for line in &self.0 {
            let bare = line.bare.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
            let ratio = line.ratio.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
            let Line {
                name,
                unit,
                mars,
                runs,
                ..
            } = line;
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<24} {unit:<5} {bare:>10} {mars:>10.3} {ratio:>7} {runs:>6}"
            );
        }
        text
    }

    /// Writes the JSON file.
    pub(crate) fn store(&self, path: &Path) -> Result {
        let lines: Vec<_> = self
            .0
            .iter()
            .map(|l| json!({"name": l.name, "unit": l.unit, "bare": l.bare, "mars": l.mars, "ratio": l.ratio, "runs": l.runs}))
            .collect();
        let text = serde_json::to_string_pretty(&json!({"schema": 1, "results": lines}))
            .context("write JSON")?;
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).context("make the directory of the JSON file")?;
        }
        std::fs::write(path, text).context(format!("write {}", path.display()))?;
        println!("written to {}", path.display());
        Ok(())
    }
}
