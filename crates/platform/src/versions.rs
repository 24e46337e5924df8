//! Versions and the alias that says which of them is served.

use atelier_access::{Caller, right};
use atelier_domain::{ModelName, VersionNumber};
use atelier_model::AdapterFiles;
use atelier_store::{Aliases, VersionRecord};

use crate::adapters::domain_digest;
use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;

/// The only alias that a caller moves.
const LIVE: &str = "live";

/// A version with the name that it is asked for by.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedVersion {
    /// `ft:atelier-base:<tenant>:<suffix>:<version>`.
    pub model: String,
    /// The version.
    pub record: VersionRecord,
}

/// A tenant's versions, newest first, and where its aliases point.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionList {
    /// The versions.
    pub versions: Vec<ListedVersion>,
    /// The aliases.
    pub aliases: Aliases,
}

impl Platform {
    /// The tenant's versions and aliases.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_versions(&self, caller: &Caller) -> Result<VersionList, PlatformError> {
        let tenant = tenant_of(caller)?;
        let grant = caller.grant(right::ReadVersions { tenant })?;
        let name = self.store().tenant(&grant.narrow(right::ReadTenant { tenant })?).await?.name;
        let listed = |record: VersionRecord| {
            let (tenant, suffix, number) = (name.clone(), record.suffix.clone(), record.number);
            ListedVersion { model: ModelName::Version { tenant, suffix, number }.to_string(), record }
        };
        let versions = self.store().versions(&grant).await?.into_iter().map(listed).collect();
        Ok(VersionList { versions, aliases: self.store().aliases(&grant).await? })
    }

    /// Points `live` at a version, or back at the one before.
    ///
    /// # Errors
    /// When the caller may not, there is no such alias or version, or the version is of another base.
    pub async fn move_alias(
        &self,
        caller: &Caller,
        alias: &str,
        to: Option<VersionNumber>,
    ) -> Result<VersionList, PlatformError> {
        let tenant = tenant_of(caller)?;
        let grant = caller.grant(right::MoveAlias { tenant })?;
        if alias != LIVE {
            let message = format!("There is no alias `{alias}` to move. The alias that moves is `{LIVE}`.");
            return Err(PlatformError::NotFound { message, code: "alias_not_found" });
        }
        let versions = caller.grant(right::ReadVersions { tenant })?;
        let target = match to {
            Some(number) => Some(number),
            None => self.store().aliases(&versions).await?.previous,
        };
        if let Some(number) = target {
            let version = self.store().version(&versions, number).await?;
            if version.base_digest != domain_digest(self.base().digest()) {
                let message = format!(
                    "Version {number} was trained on another base than the one that is served now. Learn again instead."
                );
                return Err(PlatformError::Conflict { message, code: "other_base" });
            }
        }
        self.store().roll_back(&grant, to).await?;
        self.list_versions(caller).await
    }

    /// A version's adapter in PEFT format.
    ///
    /// # Errors
    /// When the caller may not, or there is no such version.
    pub async fn export_adapter(&self, caller: &Caller, number: VersionNumber) -> Result<AdapterFiles, PlatformError> {
        let version = self.version_to_export(caller, number).await?;
        self.adapters().files(tenant_of(caller)?, version.digest).await
    }

    /// An adapter tells of the code that it learned from: who may see the sources may have it.
    pub(crate) async fn version_to_export(
        &self,
        caller: &Caller,
        number: VersionNumber,
    ) -> Result<VersionRecord, PlatformError> {
        let tenant = tenant_of(caller)?;
        let sources = caller.grant(right::ReadSources { tenant })?;
        let versions = caller.grant(right::ReadVersions { tenant })?;
        let version = self.store().version(&versions, number).await?;
        self.store().record_export(&sources, number).await?;
        Ok(version)
    }
}
