//! `atelier openapi`: the document that is committed and checked.

use anyhow::Result;

use crate::output::print;

/// Prints it, readable and stable.
pub fn run() -> Result<()> {
    let document = serde_json::to_string_pretty(&atelier_api::openapi_document())?;
    print(format!("{document}\n").as_bytes())
}
