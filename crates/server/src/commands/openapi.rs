//! `atelier openapi`: the document that is committed and checked.

use std::io::Write;

use anyhow::Result;

/// Prints it, readable and stable.
pub fn run() -> Result<()> {
    let document = serde_json::to_string_pretty(&atelier_api::openapi_document())?;
    writeln!(std::io::stdout(), "{document}")?;
    Ok(())
}
