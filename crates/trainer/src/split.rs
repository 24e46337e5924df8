//! Train, validation and test parts by file, with near-duplicates of training files out of the held-out parts.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::random::{Purpose, Random, mix};

/// One file of a source, already scrubbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path inside the source, with `/`.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// Shares of the bytes that the held-out parts get; training gets the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitShares {
    /// For early stopping.
    pub validation: f32,
    /// For the eval card; seen by nothing else.
    pub test: f32,
}

impl Default for SplitShares {
    /// A tenth each (design/evaluation.md).
    fn default() -> SplitShares {
        SplitShares { validation: 0.1, test: 0.1 }
    }
}

/// The parts of one source.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// Learned from.
    pub train: Vec<SourceFile>,
    /// Decides when to stop.
    pub validation: Vec<SourceFile>,
    /// Decides whether the adapter goes live.
    pub test: Vec<SourceFile>,
    /// Paths left out of the held-out parts because they nearly equal a training file.
    pub near_duplicates: Vec<String>,
}

/// Lexical tokens in one gram of the near-duplicate test (design/evaluation.md).
const GRAM_TOKENS: usize = 10;

/// Share of a held-out file's grams inside one training file from which it is a near-duplicate.
const SHARED_GRAMS_MAX: f64 = 0.8;

/// Grams kept of all files together: 16 bytes each, so about 64 MB. Above, grams are thinned by their hash,
/// which keeps the shares nearly the same.
const GRAMS_KEPT_MAX: usize = 4 << 20;

/// Files under which a source is cut into pieces first: with fewer, some part would be empty.
const FILES_MIN: usize = 3;

/// Pieces that such a source's largest file is cut into.
const PIECES: usize = 10;

/// How far a part may overshoot its share of bytes by taking one more file.
const OVERSHOOT: f64 = 1.25;

/// How far a part's share of the number of files may exceed its share of bytes: where one file has most of the
/// bytes, the small ones would otherwise all be held out.
const COUNT_OVERSHOOT: f64 = 2.5;

/// Splits by file: the order depends on (seed, path) only, so adding a file moves few others.
pub fn split_files(files: Vec<SourceFile>, shares: SplitShares, seed: u64) -> Split {
    let mut files = if files.len() < FILES_MIN { cut_into_pieces(files) } else { files };
    files.sort_by_cached_key(|file| (order_key(&file.path, seed), file.path.clone()));
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    let count = files.len();
    let test = take(&mut files, bytes, count, shares.test);
    let validation = take(&mut files, bytes, count, shares.validation);
    let mut split = Split { train: files, validation, test, near_duplicates: Vec::new() };
    drop_near_duplicates(&mut split);
    for part in [&mut split.train, &mut split.validation, &mut split.test] {
        part.sort_by(|left, right| left.path.cmp(&right.path));
    }
    split
}

fn order_key(path: &str, seed: u64) -> u64 {
    Random::keyed(seed, Purpose::Split, hash_bytes(path.as_bytes())).next_u64()
}

/// Takes files in order while they fit into their share of `bytes` and of `count`; at least the smallest one if the
/// share is not zero, and never all.
fn take(files: &mut Vec<SourceFile>, bytes: usize, count: usize, share: f32) -> Vec<SourceFile> {
    let quota_bytes = bytes as f64 * f64::from(share);
    let files_max = ((count as f64 * f64::from(share) * COUNT_OVERSHOOT) as usize).max(1);
    let files_max = files_max.min(files.len().saturating_sub(1));
    if quota_bytes <= 0.0 || files_max == 0 {
        return Vec::new();
    }
    let mut taken_bytes = 0.0;
    let mut taken_count = 0;
    let mut is_taken: Vec<bool> = files
        .iter()
        .map(|file| {
            let fits = taken_bytes + file.text.len() as f64 <= quota_bytes * OVERSHOOT;
            let takes = taken_bytes < quota_bytes && fits && taken_count < files_max;
            if takes {
                taken_bytes += file.text.len() as f64;
                taken_count += 1;
            }
            takes
        })
        .collect();
    if taken_count == 0 {
        let smallest = (0..files.len()).min_by_key(|&index| files[index].text.len());
        smallest.into_iter().for_each(|index| is_taken[index] = true);
    }
    let mut flags = is_taken.into_iter();
    files.extract_if(.., |_| flags.next().unwrap_or(false)).collect()
}

/// Cuts the largest file at blank lines so that a source of one or two files can still be learned from and judged.
fn cut_into_pieces(mut files: Vec<SourceFile>) -> Vec<SourceFile> {
    let Some(largest) = (0..files.len()).max_by_key(|&index| files[index].text.len()) else { return files };
    let file = files.swap_remove(largest);
    let piece_bytes = file.text.len().div_ceil(PIECES).max(1);
    let mut pieces = vec![String::new()];
    for line in file.text.split_inclusive('\n') {
        let current = pieces.last_mut().expect("never empty");
        current.push_str(line);
        if current.len() >= piece_bytes && line.trim().is_empty() {
            pieces.push(String::new());
        }
    }
    pieces.retain(|piece| !piece.trim().is_empty());
    let numbered = pieces.into_iter().enumerate();
    files.extend(numbered.map(|(number, text)| SourceFile { path: format!("{}#{number}", file.path), text }));
    files
}

/// Moves out of validation and test what equals a training file but for white space, or shares more than
/// [`SHARED_GRAMS_MAX`] of its grams with one; and out of test what so equals a validation file.
fn drop_near_duplicates(split: &mut Split) {
    let texts = || split.train.iter().chain(&split.validation).chain(&split.test);
    let lexical_tokens: usize = texts().map(|file| file.text.len() / 4).sum();
    let keep_one_in = (lexical_tokens / GRAMS_KEPT_MAX + 1) as u64;
    let mut index = DuplicateIndex::new(keep_one_in);
    split.train.iter().for_each(|file| index.add(&file.text));
    for part in [&mut split.validation, &mut split.test] {
        let dropped = part.extract_if(.., |file| index.holds_near_duplicate(&file.text));
        split.near_duplicates.extend(dropped.map(|file| file.path));
        part.iter().for_each(|file| index.add(&file.text));
    }
}

/// Grams and stripped texts of the files added so far.
struct DuplicateIndex {
    keep_one_in: u64,
    stripped: HashSet<u64>,
    files_by_gram: HashMap<u64, Vec<u32>>,
    file_count: u32,
}

impl DuplicateIndex {
    fn new(keep_one_in: u64) -> DuplicateIndex {
        DuplicateIndex { keep_one_in, stripped: HashSet::new(), files_by_gram: HashMap::new(), file_count: 0 }
    }

    fn add(&mut self, text: &str) {
        self.stripped.insert(stripped_hash(text));
        for gram in grams(text, self.keep_one_in) {
            self.files_by_gram.entry(gram).or_default().push(self.file_count);
        }
        self.file_count += 1;
    }

    fn holds_near_duplicate(&self, text: &str) -> bool {
        if self.stripped.contains(&stripped_hash(text)) {
            return true;
        }
        let grams = grams(text, self.keep_one_in);
        let mut shared = vec![0usize; self.file_count as usize];
        for gram in &grams {
            for &file in self.files_by_gram.get(gram).into_iter().flatten() {
                shared[file as usize] += 1;
            }
        }
        let most = shared.into_iter().max().unwrap_or(0);
        !grams.is_empty() && most as f64 > SHARED_GRAMS_MAX * grams.len() as f64
    }
}

/// The distinct grams of a text: each hashes [`GRAM_TOKENS`] lexical tokens in a row.
fn grams(text: &str, keep_one_in: u64) -> HashSet<u64> {
    let tokens = lexical_tokens(text);
    let hashes = tokens.windows(GRAM_TOKENS).map(|window| window.iter().fold(0, |hash, &token| mix(hash ^ token)));
    hashes.filter(|hash| hash % keep_one_in == 0).collect()
}

/// Hashes of words (letters, digits, underscores) and of each other character that is not white space.
fn lexical_tokens(text: &str) -> Vec<u64> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match is_word(first) {
            true => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        tokens.push(hash_bytes(&rest.as_bytes()[..length]));
        rest = rest[length..].trim_start();
    }
    tokens
}

fn stripped_hash(text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    text.split_whitespace().for_each(|word| {
        hasher.update(word.as_bytes());
    });
    first_u64(hasher.finalize())
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    // FNV-1a with a strong finaliser: words are short, and a cryptographic hash per word would dominate.
    mix(bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

fn first_u64(hash: blake3::Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    /// Text of `lines` lines that shares nothing with another seed's.
    fn text(seed: u64, lines: usize) -> String {
        let mut random = Random::keyed(seed, Purpose::Split, 99);
        (0..lines)
            .map(|_| format!("name_{} = call_{}({})\n", random.next_u64(), random.below(9), random.below(99)))
            .collect()
    }

    fn all_paths(split: &Split) -> Vec<String> {
        let parts = [&split.train, &split.validation, &split.test];
        let mut paths: Vec<String> = parts.iter().flat_map(|part| part.iter().map(|f| f.path.clone())).collect();
        paths.extend(split.near_duplicates.clone());
        paths.sort();
        paths
    }

    #[test]
    fn parts_are_disjoint_complete_and_of_the_right_size() {
        let files: Vec<SourceFile> = (0..60).map(|n| file(&format!("f{n:02}.py"), &text(n, 20 + n as usize))).collect();
        let bytes: usize = files.iter().map(|f| f.text.len()).sum();
        let mut paths: Vec<String> = files.iter().map(|f| f.path.clone()).collect();
        paths.sort();
        let split = split_files(files.clone(), SplitShares::default(), 1);
        assert_eq!(all_paths(&split), paths);
        for part in [&split.validation, &split.test] {
            let share = part.iter().map(|f| f.text.len()).sum::<usize>() as f64 / bytes as f64;
            assert!((0.06..0.14).contains(&share), "{share}");
        }
        let mut reversed = files.clone();
        reversed.reverse();
        let again = split_files(reversed, SplitShares::default(), 1);
        assert_eq!(again.test, split.test, "the order of the input does not matter");
        assert_ne!(split_files(files, SplitShares::default(), 2).test, split.test);
    }

    #[test]
    fn near_duplicates_of_training_files_are_not_held_out() {
        let mut files: Vec<SourceFile> = (0..30).map(|n| file(&format!("f{n:02}.py"), &text(n, 30))).collect();
        // Each file also exists re-indented, and with one line changed: any split by chance would leak.
        for n in 0..30 {
            let original = files[n].text.clone();
            files.push(file(&format!("indented{n:02}.py"), &original.replace('\n', "\n\n    ")));
            files.push(file(&format!("edited{n:02}.py"), &format!("{original}another_line = 1\n")));
        }
        let split = split_files(files, SplitShares::default(), 3);
        assert!(!split.near_duplicates.is_empty());
        let number = |path: &str| path.trim_start_matches(char::is_alphabetic)[..2].to_owned();
        let train: HashSet<String> = split.train.iter().map(|f| number(&f.path)).collect();
        for held_out in split.validation.iter().chain(&split.test) {
            assert!(!train.contains(&number(&held_out.path)), "{} leaks", held_out.path);
        }
        let validation: HashSet<String> = split.validation.iter().map(|f| number(&f.path)).collect();
        assert!(split.test.iter().all(|f| !validation.contains(&number(&f.path))));
    }

    #[test]
    fn gram_threshold() {
        let base = text(1, 100);
        let half = format!("{}{}", text(1, 50), text(2, 50));
        let mut index = DuplicateIndex::new(1);
        index.add(&base);
        let cases =
            [(base.replace(' ', "\t"), true), (half, false), (text(3, 100), false), (format!("x\n{base}"), true)];
        for (candidate, expected) in cases {
            assert_eq!(index.holds_near_duplicate(&candidate), expected, "{:.40}", candidate);
        }
        assert!(!index.holds_near_duplicate("short"));
    }

    #[test]
    fn few_files_still_fill_every_part() {
        let long: String = (0..40).map(|n| text(n, 5) + "\n").collect();
        for files in [vec![file("one.py", &long)], vec![file("one.py", &long), file("two.py", &text(50, 4))]] {
            let split = split_files(files, SplitShares::default(), 0);
            assert!(!split.train.is_empty() && !split.validation.is_empty() && !split.test.is_empty());
        }
        let empty = split_files(Vec::new(), SplitShares::default(), 0);
        assert!(empty.train.is_empty() && empty.validation.is_empty() && empty.test.is_empty());
    }

    #[test]
    fn one_huge_file_is_not_held_out() {
        let mut files = vec![file("huge.py", &text(0, 5_000))];
        files.extend((1..8).map(|n| file(&format!("small{n}.py"), &text(n, 20))));
        for seed in 0..20 {
            let split = split_files(files.clone(), SplitShares::default(), seed);
            assert!(split.train.iter().any(|f| f.path == "huge.py"), "seed {seed}");
            assert!(!split.test.is_empty() && !split.validation.is_empty());
        }
    }
}
