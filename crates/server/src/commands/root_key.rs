//! `atelier root-key`: changing the key that wraps the keys of all data. Works on the data folder itself, not over the
//! API: whoever runs it has the key.

use std::path::Path;

use anyhow::{Result, bail};
use atelier_platform::{KeyRotation, ROOT_KEY_FILE, RootKeyOptions, rotate_keys};
use serde_json::json;

use crate::cli::RootKeyCommand;
use crate::output::Output;
use crate::serve::{blob_options, database_options, root_key_options};

/// Changes keys.
pub async fn run(data: &Path, command: RootKeyCommand, output: Output) -> Result<()> {
    let RootKeyCommand::Rotate { next, data_keys, database, blobs, root_key } = command;
    if !data.exists() {
        bail!("{} is not there: name the data folder with --data", data.display());
    }
    let (database, blobs) = (database_options(&database), blob_options(&blobs)?);
    let root_key = root_key_options(&root_key)?;
    let place = match (&next, &root_key) {
        (Some(next), _) => next.clone(),
        (None, RootKeyOptions::File(file)) => file.clone(),
        (None, _) => data.join(ROOT_KEY_FILE),
    };
    let rotation = KeyRotation { next: next.clone(), data_keys };
    let put_off = rotate_keys(data.to_owned(), database, blobs, root_key, &rotation).await?;
    let put_off: Vec<String> = put_off.iter().map(ToString::to_string).collect();
    let object = json!({"root_key": place, "data_keys": data_keys, "put_off": put_off});
    output.result(&object, || {
        let then = match next {
            Some(_) => "Start the server with this key from now on: --root-key FILE, or ATELIER_ROOT_KEY.",
            None => "The next start finds it there.",
        };
        let place = place.display();
        let waiting = match put_off.as_slice() {
            [] => String::new(),
            waiting => format!(
                "\nThe buckets of these tenants do not answer: {}. Their data needs its old keys until a start finds the \
                 bucket and seals it anew.",
                waiting.join(", ")
            ),
        };
        format!(
            "The root key is now the one in {place}. {then}\nKeep a copy of it apart from the data, and the old one as \
             long as you keep backups from before: they open with the old one only.{waiting}"
        )
    })
}
