//! Results of a long run, kept after each package, so that an interrupted run goes on where it was.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::{Machine, commit, date, write_whole};

/// What was asked for, where it ran, and what is done so far.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ledger<S, R> {
    /// When it was last added to.
    pub date: String,
    /// The code of the last addition.
    pub commit: String,
    /// Of the last addition.
    pub machine: Machine,
    /// Everything that the records depend on.
    pub settings: S,
    /// One for each thing done.
    pub records: Vec<R>,
}

impl<S, R> Ledger<S, R>
where
    S: PartialEq + Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// What `path` holds, if it was made with the same settings; an empty one if there is no file.
    pub fn open(path: &Path, settings: S, machine: Machine) -> Result<Ledger<S, R>> {
        let empty = Ledger { date: date(), commit: commit(), machine: machine.clone(), settings, records: Vec::new() };
        let Ok(bytes) = std::fs::read(path) else { return Ok(empty) };
        let kept: Ledger<S, R> =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not ours to go on with", path.display()))?;
        ensure!(
            kept.settings == empty.settings,
            "{} was made with other settings or another base; remove it or name another --out",
            path.display()
        );
        Ok(Ledger { machine, ..kept })
    }

    /// Writes the whole file.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        self.date = date();
        self.commit = commit();
        write_whole(path, &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use atelier_kernels::{Compute, Tier};

    use super::*;

    #[test]
    fn goes_on_only_with_equal_settings() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.json");
        let machine = Machine::of(&Compute::new(Tier::Portable, 1));
        let mut ledger: Ledger<u32, String> = Ledger::open(&path, 1, machine.clone()).expect("there is no file yet");
        ledger.records.push("done".to_owned());
        ledger.save(&path).expect("it can be written");
        let again: Ledger<u32, String> = Ledger::open(&path, 1, machine.clone()).expect("settings are equal");
        assert_eq!(again.records, ["done"]);
        assert!(Ledger::<u32, String>::open(&path, 2, machine).is_err());
    }
}
