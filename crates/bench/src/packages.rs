//! Packages to learn from: folders of Python files that bench/personal.py has fetched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use atelier_trainer::SourceFile;
use serde::{Deserialize, Serialize};

/// Names the packages in the order of the table.
const LIST: &str = "packages.json";

/// Folders inside folders, at most: no package nests deeper, and a circle ends.
const DEPTH_MAX: usize = 16;

/// One tenant.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Package {
    /// Also of its folder.
    pub name: String,
    /// That was fetched.
    #[serde(default)]
    pub version: String,
    /// Who leads the code.
    #[serde(default)]
    pub author: String,
}

/// The packages under `folder`: those of its list, or each folder in it by name.
pub fn list(folder: &Path) -> Result<Vec<Package>> {
    let packages: Vec<Package> = match fs::read(folder.join(LIST)) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{LIST} is not a list of packages"))?,
        Err(_) => {
            let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
            let folders = entries.filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir()));
            let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            let package = |name| Package { name, version: String::new(), author: String::new() };
            names.into_iter().map(package).collect()
        }
    };
    ensure!(!packages.is_empty(), "no package in {}; bench/personal.py --fetch-only gets some", folder.display());
    Ok(packages)
}

/// Every Python file of one package, by path. Files that are not UTF-8 are left out.
pub fn read(folder: &Path, package: &Package) -> Result<Vec<SourceFile>> {
    let root = folder.join(&package.name);
    let mut files = Vec::new();
    walk(&root, &root, 0, &mut files)?;
    files.sort_by(|left: &SourceFile, right| left.path.cmp(&right.path));
    ensure!(!files.is_empty(), "no Python file in {}", root.display());
    Ok(files)
}

fn walk(root: &Path, folder: &Path, depth: usize, files: &mut Vec<SourceFile>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    for path in paths {
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(root, &path, depth + 1, files)?;
        } else if kind.is_file()
            && path.extension().is_some_and(|extension| extension == "py")
            && let Ok(text) = fs::read_to_string(&path)
        {
            let inside = path.strip_prefix(root).unwrap_or(&path);
            files.push(SourceFile { path: inside.to_string_lossy().into_owned(), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_python_text_is_read_in_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let package = folder.path().join("one");
        fs::create_dir_all(package.join("b")).expect("it can be made");
        let files: [(&str, &[u8]); 4] =
            [("b/z.py", b"z = 1\n"), ("a.py", b"a = 1\n"), ("data.bin", b"\0"), ("bad.py", b"\xff\xfe")];
        for (path, content) in files {
            fs::write(package.join(path), content).expect("it can be written");
        }
        let packages = list(folder.path()).expect("one folder is one package");
        assert_eq!(packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["one"]);
        let read = read(folder.path(), &packages[0]).expect("it has files");
        assert_eq!(read.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a.py", "b/z.py"]);
    }
}
