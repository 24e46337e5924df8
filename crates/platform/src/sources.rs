//! Sources: the code that a tenant gives to learn from. What is stored was read to its end and packed anew.

use std::path::{Path, PathBuf};

use atelier_access::{Caller, Granted, right};
use atelier_domain::names::misleads;
use atelier_domain::{SourceId, limits};
use atelier_store::{NewSource, SourceOrigin, SourceRecord};
use bytes::Bytes;

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::pipeline::ingest::{self, Packed, SourceRefused};
use crate::platform::Platform;

impl Platform {
    /// Takes a tar.gz as a source. It is read to its end and packed anew before anything is stored.
    ///
    /// # Errors
    /// When the caller may not, or when the archive is damaged, unsafe, too large, empty or without text.
    pub async fn create_source_from_archive(
        &self,
        caller: &Caller,
        name: &str,
        archive: Bytes,
    ) -> Result<SourceRecord, PlatformError> {
        let grant = caller.grant(right::WriteSources { tenant: tenant_of(caller)? })?;
        let name = source_name(name)?;
        let packed = self.inspect(move || ingest::pack_archive(&archive)).await?;
        self.create_source(&grant, name, SourceOrigin::Upload, packed).await
    }

    /// Takes a folder of the server's as a source, as it is now.
    ///
    /// # Errors
    /// When the caller may not, when the folder is not beneath a root that the operator allowed, or when there is
    /// nothing in it to learn from.
    pub async fn create_source_from_path(
        &self,
        caller: &Caller,
        name: &str,
        path: &Path,
    ) -> Result<SourceRecord, PlatformError> {
        let tenant = tenant_of(caller)?;
        let grant = caller.grant(right::WriteSources { tenant })?;
        // Whoever may write sources learns no secret from being told that folders are not theirs to name.
        let _may_name_folders =
            caller.grant(right::ReadServerFolder { tenant }).map_err(|_| SourceRefused::FolderNotAllowed)?;
        let name = source_name(name)?;
        let (path, roots): (PathBuf, Vec<PathBuf>) = (path.to_owned(), self.source_roots().to_vec());
        let packed = self.inspect(move || ingest::pack_folder(&path, &roots)).await?;
        self.create_source(&grant, name, SourceOrigin::Folder, packed).await
    }

    /// The tenant's sources.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_sources(&self, caller: &Caller) -> Result<Vec<SourceRecord>, PlatformError> {
        let grant = caller.grant(right::ReadSources { tenant: tenant_of(caller)? })?;
        Ok(self.store().sources(&grant).await?)
    }

    /// One source.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_source(&self, caller: &Caller, source: SourceId) -> Result<SourceRecord, PlatformError> {
        let grant = caller.grant(right::ReadSources { tenant: tenant_of(caller)? })?;
        Ok(self.store().source(&grant, source).await?)
    }

    /// Removes a source and its archive.
    ///
    /// # Errors
    /// When the caller may not, there is none, or a run still needs it.
    pub async fn delete_source(&self, caller: &Caller, source: SourceId) -> Result<(), PlatformError> {
        let grant = caller.grant(right::WriteSources { tenant: tenant_of(caller)? })?;
        Ok(self.store().delete_source(&grant, source).await?)
    }

    /// Reads code off the runtime's threads, a few at a time.
    async fn inspect(
        &self,
        read: impl FnOnce() -> Result<Packed, SourceRefused> + Send + 'static,
    ) -> Result<Packed, PlatformError> {
        self.check_open()?;
        let _permit = self.inspections().acquire().await.map_err(|_| PlatformError::closing())?;
        Ok(tokio::task::spawn_blocking(read).await.map_err(PlatformError::task)??)
    }

    async fn create_source(
        &self,
        grant: &Granted<right::WriteSources>,
        name: String,
        origin: SourceOrigin,
        packed: Packed,
    ) -> Result<SourceRecord, PlatformError> {
        let source = NewSource { name, origin, archive: Bytes::from(packed.archive) };
        Ok(self.store().create_source(grant, source).await?)
    }
}

fn source_name(name: &str) -> Result<String, PlatformError> {
    let name = name.trim();
    let misleads = name.chars().any(char::is_control) || misleads(name);
    if name.is_empty() || name.len() > limits::SOURCE_NAME_BYTES_MAX || misleads {
        let message = format!(
            "A source's name must have 1 to {} bytes and no letters that control, or that nobody sees.",
            limits::SOURCE_NAME_BYTES_MAX
        );
        return Err(PlatformError::invalid(message, "name", "invalid_value"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources() {
        let long = "a".repeat(limits::SOURCE_NAME_BYTES_MAX + 1);
        for (name, valid) in [
            ("app", true),
            (" app ", true),
            ("my app/é", true),
            ("", false),
            ("  ", false),
            ("a\nb", false),
            (&long, false),
        ] {
            assert_eq!(source_name(name).is_ok(), valid, "{name:?}");
        }
    }
}
