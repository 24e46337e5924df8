//! A folder on the server → the stored form. Only beneath the roots that the operator allowed, never through a link.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use atelier_domain::limits;
use ignore::{DirEntry, WalkBuilder};
use rustix::fs::OFlags;

use super::SourceRefused;
use super::packer::{Packed, Packer};
use super::rules::{self, Rejection};

/// Walks a folder, obeys its `.gitignore` files and packs what may be learned from. A path to one file is a folder of
/// that file.
///
/// # Errors
/// When it is not beneath an allowed root, is too large, empty or without text.
pub fn pack_folder(folder: &Path, roots: &[PathBuf]) -> Result<Packed, SourceRefused> {
    let folder = allowed_folder(folder, roots)?;
    let mut packer = Packer::new();
    for entry in walk(&folder) {
        packer.count_entry()?;
        match entry {
            Ok(entry) => take_entry(&mut packer, &folder, &entry)?,
            // A folder that cannot be opened: its content is out of reach, the rest is not.
            Err(_) => packer.reject("(a folder)", Rejection::Unreadable),
        }
    }
    packer.finish()
}

/// The folder's real place, if it lies beneath a root's real place. One message for "outside" and for "not there":
/// what else the server's disk holds is nobody's business.
fn allowed_folder(folder: &Path, roots: &[PathBuf]) -> Result<PathBuf, SourceRefused> {
    let refused = || SourceRefused::FolderNotAllowed;
    let real = folder.canonicalize().map_err(|_| refused())?;
    let beneath = |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if !folder.is_absolute() || !roots.iter().any(beneath) {
        return Err(refused());
    }
    Ok(real)
}

fn walk(folder: &Path) -> ignore::Walk {
    WalkBuilder::new(folder)
        .follow_links(false)
        // Dot files are judged by the rules, which count them.
        .hidden(false)
        // Only what lies inside the folder decides, so that the same folder gives the same source anywhere.
        .parents(false)
        .git_global(false)
        .require_git(false)
        .filter_entry(|entry| entry.depth() == 0 || !is_nested_in_vendored(entry))
        .sort_by_file_name(Ord::cmp)
        .build()
}

/// Lets a vendored folder itself through, to be counted, and nothing below it.
fn is_nested_in_vendored(entry: &DirEntry) -> bool {
    let parent = entry.path().parent().and_then(Path::file_name);
    entry.depth() > 1 && parent.is_some_and(|name| rules::is_vendored_folder(&name.to_string_lossy()))
}

fn take_entry(packer: &mut Packer, folder: &Path, entry: &DirEntry) -> Result<(), SourceRefused> {
    // Of a single file the name alone is left.
    let inside = match entry.path().strip_prefix(folder) {
        Ok(inside) if entry.depth() > 0 => inside,
        _ => Path::new(entry.file_name()),
    };
    let Some(path) = inside.to_str() else {
        packer.reject(&inside.to_string_lossy(), Rejection::PathNotUtf8);
        return Ok(());
    };
    let kind = entry.file_type();
    if kind.is_some_and(|kind| kind.is_dir()) {
        if entry.depth() > 0 && rules::is_vendored_folder(&entry.file_name().to_string_lossy()) {
            packer.reject(path, Rejection::Vendored);
        }
        return Ok(());
    }
    if !kind.is_some_and(|kind| kind.is_file()) {
        packer.reject(path, Rejection::NotAPlainFile);
        return Ok(());
    }
    if let Some(reason) = rules::reject_path(path) {
        packer.reject(path, reason);
        return Ok(());
    }
    match read_plain(entry.path()) {
        Ok(bytes) => packer.offer(path, &bytes),
        Err(reason) => {
            packer.reject(path, reason);
            Ok(())
        }
    }
}

/// Reads at most one byte more than a file may have. Opened without following a link and without waiting for a pipe,
/// since the folder may change under the walk.
fn read_plain(path: &Path) -> Result<Vec<u8>, Rejection> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|_| Rejection::Unreadable)?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return Err(Rejection::NotAPlainFile);
    }
    let mut bytes = Vec::new();
    file.take(limits::SOURCE_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|_| Rejection::Unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::pipeline::ingest::unpack;

    fn write(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn a_folder_is_walked_with_its_ignore_files_and_without_links() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        write(outside.path(), "secret.py", b"password = 1\n");
        let project = root.path().join("project");
        write(&project, "a.py", b"a = 1\n");
        write(&project, "src/b.rs", b"fn b() {}\n");
        write(&project, "generated/c.py", b"c = 1\n");
        write(&project, ".gitignore", b"generated/\n");
        write(&project, "node_modules/x/index.js", b"x = 1\n");
        write(&project, "node_modules/y/index.js", b"y = 1\n");
        write(&project, ".env", b"KEY=1\n");
        write(&project, "logo.py", b"\0\0");
        symlink(outside.path(), project.join("linked")).unwrap();
        symlink(outside.path().join("secret.py"), project.join("link.py")).unwrap();
        let packed = pack_folder(&project, &[root.path().to_owned()]).unwrap();
        let (files, manifest) = unpack(&packed.archive).unwrap();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".gitignore", "a.py", "src/b.rs"]);
        let expected =
            [(Rejection::Binary, 1), (Rejection::Vendored, 1), (Rejection::Secret, 1), (Rejection::NotAPlainFile, 2)];
        assert_eq!(manifest.rejected, expected.into_iter().collect());
        let again = pack_folder(&project, &[root.path().to_owned()]).unwrap();
        assert_eq!(again.archive, packed.archive, "the same folder gives the same source");
    }

    #[test]
    fn only_beneath_an_allowed_root() {
        let root = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        write(root.path(), "in/a.py", b"a = 1\n");
        write(other.path(), "b.py", b"b = 1\n");
        symlink(other.path(), root.path().join("out")).unwrap();
        let roots = [root.path().to_owned()];
        let check = |folder: PathBuf, words: Option<&str>| match (pack_folder(&folder, &roots), words) {
            (Ok(_), None) => {}
            (Err(refused), Some(words)) => assert!(refused.to_string().contains(words), "{refused}"),
            (got, _) => panic!("{}: {got:?}", folder.display()),
        };
        check(root.path().join("in"), None);
        check(root.path().to_owned(), None);
        check(root.path().join("in/.."), None);
        check(root.path().join("in/a.py"), None);
        check(root.path().join("out"), Some("not allow"));
        check(root.path().join("in/../.."), Some("not allow"));
        check(root.path().join("nowhere"), Some("not allow"));
        check(other.path().to_owned(), Some("not allow"));
        check(PathBuf::from("/etc"), Some("not allow"));
        check(PathBuf::from("in"), Some("not allow"));
    }
}
