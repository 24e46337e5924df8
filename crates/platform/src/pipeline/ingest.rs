//! Code of any origin → the one stored form, with a reason for every file that was left out.
//!
//! Layout: `rules` (which file is learned from), `packer` (the stored form), `archive` (uploads), `folder` (paths on
//! the server). A source is immutable: what a run learns from later is what was accepted here.

mod archive;
mod folder;
mod packer;
mod rules;

use std::io;

pub use archive::pack_archive;
pub use folder::pack_folder;
pub use packer::{Manifest, Packed, RejectedFile, unpack};
pub use rules::Rejection;

/// Why a source was not accepted at all. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum SourceRefused {
    /// Not a tar.gz, cut short, or changed on the way.
    #[error("The upload is not a complete tar.gz archive. Make one with: tar czf code.tar.gz FOLDER")]
    Damaged(#[source] io::Error),
    /// An entry that could reach outside of the archive.
    #[error("The archive's entry '{path}' {what}. Pack plain files and folders under relative paths only.")]
    UnsafeEntry {
        /// The entry's path, made safe to show.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More content than a source may have.
    #[error("The source is larger than {bytes_max} bytes. Leave out data and build output, or give it in parts.")]
    TooLarge {
        /// The bound that was passed.
        bytes_max: usize,
    },
    /// Unpacks to far more than any code does.
    #[error("The archive unpacks to more than {ratio_max} times its size, which no code does. Pack it anew.")]
    RatioTooHigh {
        /// The bound that was passed.
        ratio_max: u64,
    },
    /// More files than a source may have.
    #[error("The source has more than {files_max} files to learn from. Give it in parts.")]
    TooManyFiles {
        /// The bound that was passed.
        files_max: usize,
    },
    /// More entries than will be looked at.
    #[error("The source has more than {entries_max} entries. Leave out data and build output, or give it in parts.")]
    TooManyEntries {
        /// The bound that was passed.
        entries_max: usize,
    },
    /// Nothing in it.
    #[error("The source is empty: it has no files. Give a folder or an archive with code in it.")]
    Empty,
    /// Files, but none to learn from.
    #[error("The source has no text to learn from: of its {files} files, {reasons}. Give a folder with code in it.")]
    NoText {
        /// How many files there were.
        files: usize,
        /// Counts by reason.
        reasons: String,
    },
    /// Outside of what the operator allowed, or not there.
    #[error(
        "The server does not allow that path as a source. Give the absolute path of a folder beneath one of the roots \
         that the operator allowed, or upload a tar.gz."
    )]
    FolderNotAllowed,
    /// Our own packing failed.
    #[error("the source could not be packed: {0}")]
    Pack(io::ErrorKind),
}
