//! `atelier complete`: what an editor would ask at the end of a line.

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cli::CompleteArgs;
use crate::client::{Client, Place};
use crate::output::Output;

/// Asks the server, streamed.
pub async fn run(place: &Place, args: CompleteArgs, output: Output) -> Result<()> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("Cannot read {} as UTF-8 text.", args.file.display()))?;
    let (prefix, suffix) = split_after_line(&text, args.line)?;
    let client = Client::find(place)?.for_tenant(args.tenant.name.as_deref());
    let body = json!({
        "model": args.model, "prompt": prefix, "suffix": suffix, "max_tokens": args.max_tokens,
        "temperature": 0, "stream": true, "stream_options": {"include_usage": true},
    });
    let mut frames = client.stream("/v1/completions", &body).await?;
    let (mut completion, mut usage) = (String::new(), json!(null));
    while let Some(chunk) = frames.next().await? {
        let part = chunk["choices"][0]["text"].as_str().unwrap_or_default();
        completion.push_str(part);
        if !output.is_json() {
            output.say_part(part);
        }
        if chunk["usage"].is_object() {
            usage = chunk["usage"].clone();
        }
    }
    if completion.trim().is_empty() {
        eprintln!("The model adds nothing here.");
    }
    let object = json!({"model": args.model, "completion": completion, "usage": usage});
    output.result(&object, String::new)
}

/// The text up to and with line `line` (counted from 1) without its newline, and what follows.
fn split_after_line(text: &str, line: usize) -> Result<(&str, &str)> {
    let count = text.lines().count();
    if line == 0 || line > count {
        bail!("--line {line}: the file has {count} lines.");
    }
    let end = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    let prefix = text[..end].strip_suffix('\n').unwrap_or(&text[..end]);
    let prefix = prefix.strip_suffix('\r').unwrap_or(prefix);
    Ok((prefix, &text[prefix.len()..]))
}

#[cfg(test)]
mod tests {
    use super::split_after_line;

    #[test]
    fn a_file_splits_at_the_end_of_a_line() {
        let cases = [
            ("a\nb\nc\n", 2, Some(("a\nb", "\nc\n"))),
            ("a\nb", 2, Some(("a\nb", ""))),
            ("a\r\nb\r\n", 1, Some(("a", "\r\nb\r\n"))),
            ("a\n", 0, None),
            ("a\n", 2, None),
        ];
        for (text, line, expected) in cases {
            assert_eq!(split_after_line(text, line).ok(), expected, "{text:?} at {line}");
        }
    }
}
