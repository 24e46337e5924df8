//! Where and with what a figure was measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use atelier_kernels::{Compute, Tier};
use clap::Args;
use serde::{Deserialize, Serialize};

/// What to compute with, and from which base.
#[derive(Args, Debug, Clone)]
pub struct HostArgs {
    /// Folder of the base model
    #[arg(long, default_value = "models/atelier-base")]
    pub base: PathBuf,
    /// Threads that compute; all cores unless told
    #[arg(long)]
    pub threads: Option<usize>,
    /// SIMD tier (portable, avx2, avx512, avx512-bf16); the best of this machine unless told
    #[arg(long)]
    pub simd: Option<String>,
}

impl HostArgs {
    /// Threads and tier as told.
    pub fn compute(&self) -> Result<Arc<Compute>> {
        let tier = match &self.simd {
            None => Tier::detect(),
            Some(name) => name.parse().map_err(|error| anyhow!("--simd {name}: {error}"))?,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Arc::new(Compute::new(tier, self.threads.unwrap_or(cores).max(1))))
    }

    /// Last part of the base's path: its name in tables.
    pub fn base_name(&self) -> String {
        self.base.file_name().map_or_else(|| "base".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// The machine, the day and the code of a run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Machine {
    /// As the processor calls itself.
    pub cpu: String,
    /// Of the processor, as identification where the model name says little.
    pub cpu_family: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// Threads that computed.
    pub threads: usize,
    /// SIMD tier that was used.
    pub tier: String,
    /// Load average of the last minute when the run began: above zero means that we were not alone.
    pub load: String,
}

impl Machine {
    /// Asks the operating system.
    pub fn of(compute: &Compute) -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cpu: field("model name"),
            cpu_family: format!("{}/{}", field("cpu family"), field("model")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: compute.threads(),
            tier: compute.tier().to_string(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Now, as RFC 3339 in whole seconds.
pub fn date() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).map_or_else(|_| now.to_string(), |whole| whole.to_string())
}

/// The commit that is checked out, with a `+` where tracked files differ from it; `unknown` outside of git.
pub fn commit() -> String {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|list| !list.is_empty());
    if changed { head + "+" } else { head }
}

/// Writes a file so that a kill leaves the old one or the new one.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, content)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
