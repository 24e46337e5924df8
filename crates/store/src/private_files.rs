//! Files that only the server's own user may read: secrets, and what tells of tenants.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Secrets are for the server's own user alone.
pub(crate) const MODE: u32 = 0o600;

/// Opens a file to read and to change it; made empty where there is none.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)
}

/// Puts these parts, one after another, in a file's place whole and durably, whatever was there: by a draft beside it, so
/// that no crash leaves half of it.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    // One that a crash left.
    let _ = fs::remove_file(&draft);
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(&draft)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder_of(path)
}

/// Makes what a rename or a removal in this file's folder did outlive a power cut.
pub(crate) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
