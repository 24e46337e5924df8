//! The one stored form of a source: a tar.gz of the accepted files and, last, a manifest of what was left out. What is
//! stored is exactly what may be learned from.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};

use atelier_domain::limits;
use atelier_trainer::SourceFile;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::SourceRefused;
use super::rules::{self, Rejection};

/// Name of the manifest inside the archive; no accepted file can have it, since `.json` is not code.
pub(super) const MANIFEST_NAME: &str = ".atelier-manifest.json";

/// Rejected paths that a manifest names; the others are only counted.
const EXAMPLES_MAX: usize = 20;

/// Faster than the default by half and larger by a twentieth, on source code.
const COMPRESSION: Compression = Compression::new(4);

/// What a source holds and what was left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Files that may be learned from.
    pub files: usize,
    /// Bytes of their text.
    pub bytes: u64,
    /// How many files were left out, by reason. A vendored folder of a server's path counts once.
    pub rejected: BTreeMap<Rejection, usize>,
    /// The first of them.
    pub examples: Vec<RejectedFile>,
}

/// A file that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedFile {
    /// Its path inside the source.
    pub path: String,
    /// Why.
    pub reason: Rejection,
}

impl Manifest {
    /// How many files were left out.
    #[must_use]
    pub fn rejected_count(&self) -> usize {
        self.rejected.values().sum()
    }

    /// `3 binary, 1 too large`: for messages.
    #[must_use]
    pub fn rejected_words(&self) -> String {
        let parts: Vec<String> = self.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.join(", ")
    }
}

/// A source in its stored form.
#[derive(Debug)]
pub struct Packed {
    /// The tar.gz.
    pub archive: Vec<u8>,
    /// What it holds.
    pub manifest: Manifest,
}

/// Takes files one at a time, so that no more than one file's text is in memory beside the compressed whole.
pub(super) struct Packer {
    builder: tar::Builder<GzEncoder<Vec<u8>>>,
    manifest: Manifest,
    seen: HashSet<String>,
    entries: usize,
}

impl Packer {
    pub(super) fn new() -> Self {
        let builder = tar::Builder::new(GzEncoder::new(Vec::new(), COMPRESSION));
        Self { builder, manifest: Manifest::default(), seen: HashSet::new(), entries: 0 }
    }

    /// Counts anything that was looked at, folders too: the bound on work.
    pub(super) fn count_entry(&mut self) -> Result<(), SourceRefused> {
        self.entries += 1;
        if self.entries > limits::SOURCE_ENTRIES_MAX {
            return Err(SourceRefused::TooManyEntries { entries_max: limits::SOURCE_ENTRIES_MAX });
        }
        Ok(())
    }

    pub(super) fn reject(&mut self, path: &str, reason: Rejection) {
        *self.manifest.rejected.entry(reason).or_default() += 1;
        if self.manifest.examples.len() < EXAMPLES_MAX {
            self.manifest.examples.push(RejectedFile { path: path.to_owned(), reason });
        }
    }

    /// Takes over what our own command line left out before it uploaded. Only counts and a few names for the run's
    /// record: nothing is decided by them.
    pub(super) fn adopt(&mut self, manifest: &[u8]) {
        let Ok(earlier) = serde_json::from_slice::<Manifest>(manifest) else { return };
        for (reason, count) in earlier.rejected {
            let sum = self.manifest.rejected.entry(reason).or_default();
            *sum = sum.saturating_add(count).min(limits::SOURCE_ENTRIES_MAX);
        }
        let room = EXAMPLES_MAX - self.manifest.examples.len();
        let short = |file: &RejectedFile| file.path.len() <= limits::SOURCE_PATH_BYTES_MAX;
        self.manifest.examples.extend(earlier.examples.into_iter().filter(short).take(room));
    }

    /// Takes the file if it is one to learn from, and notes why if not.
    pub(super) fn offer(&mut self, path: &str, bytes: &[u8]) -> Result<(), SourceRefused> {
        if let Some(reason) = rules::reject_path(path) {
            self.reject(path, reason);
            return Ok(());
        }
        let text = match rules::accept_content(bytes) {
            Ok(text) => text,
            Err(reason) => {
                self.reject(path, reason);
                return Ok(());
            }
        };
        if !self.seen.insert(path.to_owned()) {
            self.reject(path, Rejection::Repeated);
            return Ok(());
        }
        self.manifest.files += 1;
        self.manifest.bytes += text.len() as u64;
        if self.manifest.files > limits::SOURCE_FILES_MAX {
            return Err(SourceRefused::TooManyFiles { files_max: limits::SOURCE_FILES_MAX });
        }
        if self.manifest.bytes > limits::SOURCE_UNPACKED_BYTES_MAX as u64 {
            return Err(SourceRefused::TooLarge { bytes_max: limits::SOURCE_UNPACKED_BYTES_MAX });
        }
        self.append(path, text.as_bytes()).map_err(|error| SourceRefused::Pack(error.kind()))
    }

    pub(super) fn finish(mut self) -> Result<Packed, SourceRefused> {
        if self.manifest.files == 0 && self.manifest.rejected.is_empty() {
            return Err(SourceRefused::Empty);
        }
        if self.manifest.files == 0 {
            return Err(SourceRefused::NoText {
                files: self.manifest.rejected_count(),
                reasons: self.manifest.rejected_words(),
            });
        }
        let manifest =
            serde_json::to_vec(&self.manifest).map_err(|_| SourceRefused::Pack(io::ErrorKind::InvalidData))?;
        let archive = self
            .append(MANIFEST_NAME, &manifest)
            .and_then(|()| self.builder.into_inner())
            .and_then(GzEncoder::finish)
            .map_err(|error| SourceRefused::Pack(error.kind()))?;
        if archive.len() > limits::SOURCE_ARCHIVE_BYTES_MAX {
            return Err(SourceRefused::TooLarge { bytes_max: limits::SOURCE_ARCHIVE_BYTES_MAX });
        }
        Ok(Packed { archive, manifest: self.manifest })
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, path, bytes)?;
        self.builder.get_mut().flush()
    }
}

/// Reads the stored form back; files sorted by path.
///
/// # Errors
/// When the bytes are not what `Packer` wrote.
pub fn unpack(archive: &[u8]) -> io::Result<(Vec<SourceFile>, Manifest)> {
    let mut files = Vec::new();
    let mut manifest = None;
    let mut reader = tar::Archive::new(GzDecoder::new(archive));
    for entry in reader.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).map_err(io::Error::other)?;
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        if path == MANIFEST_NAME {
            manifest = Some(serde_json::from_str(&text)?);
        } else {
            files.push(SourceFile { path, text });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let manifest = manifest.ok_or_else(|| io::Error::other("a stored source without its manifest"))?;
    Ok((files, manifest))
}
