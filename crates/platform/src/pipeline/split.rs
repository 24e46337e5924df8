//! Train, validation and test parts. Sources of few files are cut into regions first, so that there is always text
//! that was not learned from.

use std::collections::HashSet;

use atelier_trainer::{SourceFile, Split, SplitShares, split_files};

use super::JobError;

/// Files below which the files are cut into pieces: fewer would leave a part with one file or none.
const FILES_MIN: usize = 10;

/// A file that holds more than this share of all bytes is cut too: no part could take it whole.
const FILE_SHARE_MAX: f32 = 0.2;

/// Pieces that such a source is cut into, over all: enough that the held-out parts come from several places.
const PIECES: usize = 24;

/// Bytes of the smallest piece: about one function.
const PIECE_BYTES_MIN: usize = 400;

/// Bytes of a source below which a tenth is too little to judge by: about sixty windows of 512 tokens.
const SMALL_SOURCE_BYTES: usize = 100_000;

/// Shares for such a source.
const SMALL_SHARES: SplitShares = SplitShares { validation: 0.1, test: 0.2 };

/// Cuts files into the three parts; the same files and seed give the same parts.
#[must_use]
pub fn cut(files: Vec<SourceFile>, seed: u64) -> Split {
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    let shares = if bytes < SMALL_SOURCE_BYTES { SMALL_SHARES } else { SplitShares::default() };
    let largest = files.iter().map(|file| file.text.len()).max().unwrap_or(0);
    let is_uneven = largest as f32 > bytes as f32 * FILE_SHARE_MAX;
    let files = if files.len() < FILES_MIN || is_uneven { cut_into_regions(files, bytes) } else { files };
    split_files(files, shares, seed)
}

/// The files or regions of these paths, as [`cut`] made them.
#[must_use]
pub fn select(files: Vec<SourceFile>, seed: u64, paths: &[String]) -> Vec<SourceFile> {
    let wanted: HashSet<&str> = paths.iter().map(String::as_str).collect();
    let parts = cut(files, seed);
    let all = parts.test.into_iter().chain(parts.validation).chain(parts.train);
    all.filter(|file| wanted.contains(file.path.as_str())).collect()
}

/// Refuses parts that nothing can be learned from or judged by.
pub(crate) fn check(parts: &Split) -> Result<(), JobError> {
    if parts.train.is_empty() || parts.validation.is_empty() || parts.test.is_empty() {
        return Err(JobError::Refused {
            code: "too_little_text",
            message: "There is too little text: some of it must be kept aside to judge by. Give more code.".to_owned(),
            result: None,
        });
    }
    Ok(())
}

/// One line for the run's record.
pub(crate) fn in_words(parts: &Split) -> String {
    let mut words = format!(
        "{} files or regions to learn from, {} to decide when to stop, {} to judge by",
        parts.train.len(),
        parts.validation.len(),
        parts.test.len()
    );
    if !parts.near_duplicates.is_empty() {
        words += &format!("; {} near-duplicates left out of the held-out parts", parts.near_duplicates.len());
    }
    words
}

fn cut_into_regions(files: Vec<SourceFile>, bytes: usize) -> Vec<SourceFile> {
    let piece_bytes = (bytes / PIECES).max(PIECE_BYTES_MIN);
    files.into_iter().flat_map(|file| regions(&file, piece_bytes)).collect()
}

/// Pieces of about `piece_bytes` that begin at a line without indentation after a blank one, or, where there is none
/// for too long, at any line.
fn regions(file: &SourceFile, piece_bytes: usize) -> Vec<SourceFile> {
    let mut pieces = vec![String::new()];
    let mut after_blank = false;
    for line in file.text.split_inclusive('\n') {
        let current = pieces.last().map_or(0, String::len);
        let begins_something = after_blank && line.starts_with(|first: char| !first.is_whitespace());
        let overdue = current >= 2 * piece_bytes;
        if (current >= piece_bytes && begins_something) || overdue {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(line);
        }
        after_blank = line.trim().is_empty();
    }
    pieces.retain(|piece| !piece.trim().is_empty());
    if pieces.len() == 1 {
        return vec![file.clone()];
    }
    let numbered = pieces.into_iter().enumerate();
    numbered.map(|(number, text)| SourceFile { path: numbered_path(&file.path, number + 1), text }).collect()
}

/// `a/b.py` → `a/b#3.py`: the ending stays, since it tells the language.
fn numbered_path(path: &str, number: usize) -> String {
    let name_start = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name_start..].rfind('.') {
        Some(dot) if dot > 0 => {
            let (stem, ending) = path.split_at(name_start + dot);
            format!("{stem}#{number}{ending}")
        }
        _ => format!("{path}#{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, number: usize) -> String {
        let hash = blake3::hash(format!("{name} {number}").as_bytes()).to_hex();
        let words: Vec<&str> = (0..16).map(|word| &hash[word * 4..word * 4 + 4]).collect();
        format!(
            "def {name}_{number}(value_{}):\n    total = '{}'\n    return total\n\n\n",
            words[0],
            words.join("' + '")
        )
    }

    fn source(files: usize, functions: usize) -> Vec<SourceFile> {
        let text = |file: usize| (0..functions).map(|number| function(&format!("f{file}"), number)).collect();
        (0..files).map(|file| SourceFile { path: format!("src/m{file}.py"), text: text(file) }).collect()
    }

    fn check_parts(files: usize, functions: usize) -> Split {
        let parts = cut(source(files, functions), 7);
        assert!(check(&parts).is_ok(), "{files} files of {functions}: {}", in_words(&parts));
        let held_out = parts.test.iter().chain(&parts.validation);
        assert!(held_out.clone().all(|file| !parts.train.contains(file)));
        let train_bytes: usize = parts.train.iter().map(|file| file.text.len()).sum();
        let held_out_bytes: usize = held_out.map(|file| file.text.len()).sum();
        assert!(train_bytes > held_out_bytes, "{train_bytes} {held_out_bytes}");
        parts
    }

    #[test]
    fn sources_of_any_shape_have_held_out_text() {
        check_parts(1, 40);
        check_parts(2, 40);
        check_parts(5, 8);
        check_parts(12, 4);
        check_parts(60, 10);
    }

    #[test]
    fn one_large_file_among_small_ones_is_cut_too() {
        let mut files = source(1, 60);
        files.extend(source(13, 1).split_off(1));
        let parts = cut(files, 7);
        let bytes = |files: &[SourceFile]| files.iter().map(|file| file.text.len()).sum::<usize>();
        let all = bytes(&parts.train) + bytes(&parts.validation) + bytes(&parts.test);
        assert!(bytes(&parts.test) * 10 > all, "{}", in_words(&parts));
    }

    #[test]
    fn no_byte_is_lost_or_made_up_by_cutting() {
        let file = SourceFile { path: "a.py".to_owned(), text: (0..30).map(|n| function("f", n)).collect() };
        let pieces = regions(&file, 500);
        assert!(pieces.len() > 5);
        assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), file.text);
        assert!(pieces.iter().all(|piece| piece.text.starts_with("def ")));
        let one_line = SourceFile { path: "b.py".to_owned(), text: "x = 1\n".repeat(1_000) };
        assert!(regions(&one_line, 500).len() > 3, "lines without a blank one between are cut too");
    }

    #[test]
    fn the_same_source_is_cut_the_same_way() {
        let (one, other) = (cut(source(3, 20), 1), cut(source(3, 20), 1));
        assert_eq!(one.test, other.test);
        let paths: Vec<String> = one.test.iter().map(|file| file.path.clone()).collect();
        assert_eq!(select(source(3, 20), 1, &paths), one.test);
    }

    #[test]
    fn a_piece_keeps_its_language() {
        for (path, expected) in
            [("a/b.py", "a/b#2.py"), ("Makefile", "Makefile#2"), ("a.b/c", "a.b/c#2"), (".gitignore", ".gitignore#2")]
        {
            assert_eq!(numbered_path(path, 2), expected);
        }
    }

    #[test]
    fn one_line_is_too_little() {
        let parts = cut(vec![SourceFile { path: "a.py".to_owned(), text: "x = 1\n".to_owned() }], 0);
        assert!(matches!(check(&parts), Err(JobError::Refused { code: "too_little_text", .. })));
    }
}
