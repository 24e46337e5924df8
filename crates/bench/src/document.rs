//! Tables in a Markdown document, between marks, so that a run replaces its own table and nothing else.

use std::path::Path;

use anyhow::{Context, Result};

use crate::host::write_whole;

/// Replaces what stands between `<!-- begin name -->` and `<!-- end name -->` in the file.
pub fn replace(path: &Path, name: &str, content: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let replaced = spliced(&text, name, content)
        .with_context(|| format!("{} has no marks `begin {name}` and `end {name}`", path.display()))?;
    write_whole(path, replaced.as_bytes())
}

fn spliced(text: &str, name: &str, content: &str) -> Option<String> {
    let begin = format!("<!-- begin {name} -->");
    let start = text.find(&begin)? + begin.len();
    let end = start + text[start..].find(&format!("<!-- end {name} -->"))?;
    Some(format!("{}\n{}\n{}", &text[..start], content.trim_end(), &text[end..]))
}

/// A Markdown table; the first column is text, the others are figures.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    let marks: Vec<String> =
        (0..headings.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(&headings) + &line(&marks) + &rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_part_changes() {
        let text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb <!-- begin y --><!-- end y -->\n";
        let expected = "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb <!-- begin y --><!-- end y -->\n";
        assert_eq!(spliced(text, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(spliced(text, "z", "new"), None);
        assert_eq!(spliced(expected, "x", "new").as_deref(), Some(expected));
    }

    #[test]
    fn tables_have_a_row_of_marks() {
        let rows = [vec!["a".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["name", "value"], &rows), "| name | value |\n| --- | ---: |\n| a | 1 |\n");
    }
}
