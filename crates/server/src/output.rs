//! What commands print: one JSON object for scripts, sentences and tables for people.

use std::error::Error;
use std::io::{ErrorKind, Write};

use anyhow::Result;
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON for scripts, or text for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether scripts are reading.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// The result of a command: the object for scripts, `text` for people.
    pub fn result(self, object: &Value, text: impl FnOnce() -> String) -> Result<()> {
        let line = if self.json { object.to_string() } else { text() };
        print(format!("{}\n", line.trim_end()).as_bytes())
    }

    /// A line of the story as it goes on; never on standard output when scripts read that.
    pub fn say(self, line: impl AsRef<str>) {
        if self.json {
            eprintln!("{}", line.as_ref());
        } else {
            // A closed pipe ends the story, not the work.
            let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
        }
    }

    /// Part of a line, shown at once.
    pub fn say_part(self, part: &str) {
        if self.json {
            eprint!("{part}");
        } else {
            let mut out = std::io::stdout();
            let _ = write!(out, "{part}").and_then(|()| out.flush());
        }
    }
}

/// Writes to standard output. Whoever reads there may stop before the end, as `head` does: that is no error.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// An error and its causes in one line: what follows a whole sentence stands in brackets.
pub fn line_of(error: &(dyn Error + 'static)) -> String {
    let said = error.to_string();
    match error.source().map(line_of) {
        None => said,
        // Some errors repeat their cause.
        Some(cause) if said.ends_with(&cause) => said,
        Some(cause) if said.ends_with(['.', '?']) => format!("{said} ({cause})"),
        Some(cause) => format!("{said}: {cause}"),
    }
}

/// A table, or where it has no rows what there is to know instead.
pub fn table_or(nothing: &str, headings: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() { nothing.to_owned() } else { table(headings, rows) }
}

/// So many of something.
pub fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Rows of equal length under headings, columns aligned.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// A cell of a table: text without its quotes, and a dash for nothing.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{count, line_of, table};

    #[test]
    fn an_error_is_one_line() {
        let line = |error: anyhow::Error| line_of(error.as_ref());
        assert_eq!(line(anyhow!("no such file").context("Cannot read x.")), "Cannot read x. (no such file)");
        assert_eq!(line(anyhow!("c").context("b").context("a")), "a: b: c");
        assert_eq!(line(anyhow!("b").context("a: b")), "a: b");
        assert_eq!(line(anyhow!("a")), "a");
        assert_eq!((count(1, "event").as_str(), count(0, "event").as_str()), ("1 event", "0 events"));
    }

    #[test]
    fn a_table_aligns_its_columns() {
        let rows = vec![vec!["acme".to_owned(), "tuned".to_owned()], vec!["a".to_owned(), "shared".to_owned()]];
        assert_eq!(table(&["NAME", "PLAN"], &rows), "NAME  PLAN\nacme  tuned\na     shared");
    }
}
