//! The base as training needs it: with the weights of the backward pass, in memory only while something trains, so
//! that serving alone does not pay for it.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use atelier_model::{Compute, Digest, LoadOptions, Model, Tier, WeightFormat};
use tokio::sync::Mutex;

use crate::error::PlatformError;

pub(crate) struct TrainingBase {
    folder: PathBuf,
    format: WeightFormat,
    tier: Tier,
    threads: usize,
    /// What the server loaded at its start: the files may have changed since.
    expected: Digest,
    loaded: Mutex<Weak<Model>>,
}

impl TrainingBase {
    pub(crate) fn new(folder: PathBuf, format: WeightFormat, served: &Model) -> Self {
        let (tier, threads) = (served.compute().tier(), served.compute().threads());
        Self { folder, format, tier, threads, expected: served.digest(), loaded: Mutex::default() }
    }

    /// Shared by all that train at the same time; freed with the last of them.
    pub(crate) async fn get(&self) -> Result<Arc<Model>, PlatformError> {
        let mut loaded = self.loaded.lock().await;
        if let Some(model) = loaded.upgrade() {
            return Ok(model);
        }
        let options = LoadOptions { format: self.format, with_backward: true };
        let compute = Arc::new(Compute::new(self.tier, self.threads));
        let folder = self.folder.clone();
        let model = tokio::task::spawn_blocking(move || Model::load(compute, &folder, options))
            .await
            .map_err(PlatformError::task)?
            .map_err(PlatformError::Base)?;
        if model.digest() != self.expected {
            return Err(PlatformError::Conflict {
                message: "The base model's files have changed since the server started. Restart it.".to_owned(),
                code: "base_changed",
            });
        }
        let model = Arc::new(model);
        *loaded = Arc::downgrade(&model);
        Ok(model)
    }
}
