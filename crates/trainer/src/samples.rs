//! Training samples and held-out windows from files.
//!
//! Untrusted code is always tokenised with special-token strings read as plain text; only this module puts
//! special tokens between the pieces.

use std::ops::Range;

use atelier_model::{FimTokens, Tokenizer};

use crate::language::Language;
use crate::random::{Purpose, Random};
use crate::scopes::{Scope, ScopeKind, scopes};
use crate::split::SourceFile;

/// Share of fill-in-the-middle samples in suffix-prefix-middle order: the completion endpoint asks in
/// prefix-suffix-middle order, so the other is only there as variation (StarCoder and others mix both).
const SPM_SHARE: f64 = 0.1;

/// How places are chosen.
#[derive(Clone, Copy)]
struct Taste {
    /// Share of spans that ignore syntax even where there are scopes.
    random_share: f64,
    /// Whether a span may begin inside a word.
    is_inside_words: bool,
}

/// People stop in odd places, and what is learned must serve them there too.
const LEARNING: Taste = Taste { random_share: 0.15, is_inside_words: true };

/// Judged are the places where a completion is mostly asked for (design/evaluation.md); text without scopes gets
/// random spans.
const JUDGING: Taste = Taste { random_share: 0.0, is_inside_words: false };

/// Share of syntax cuts that begin inside their scope instead of at its start: completion is mostly asked for
/// after something of it was typed.
const INSIDE_SCOPE_SHARE: f64 = 0.5;

/// Tokens of the shortest piece of a file that is cut for fill-in-the-middle; a shorter one has no context.
const FIM_PIECE_TOKENS_MIN: usize = 24;

/// Tokens that one fill-in-the-middle piece adds: prefix, suffix and middle marks and the end mark.
const FIM_MARK_TOKENS: usize = 4;

/// Bytes of the longest random span.
const RANDOM_SPAN_BYTES_MAX: usize = 200;

/// Tokens of the longest completion that is asked for in evaluation (design/evaluation.md).
pub const TARGET_TOKENS_MAX: usize = 50;

/// Places tried for each completion item that is wanted, before a file is given up.
const ITEM_ATTEMPTS: usize = 8;

/// How a sample was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Text as it stands.
    Window,
    /// At least one piece of it is rearranged for fill-in-the-middle.
    Fim,
}

/// Tokens to learn or to be judged on: every token but the first is a target of those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Two or more.
    pub tokens: Vec<u32>,
    /// Bytes of text that the targets stand for; special tokens stand for none.
    pub bytes: usize,
    /// How it was made.
    pub kind: SampleKind,
}

/// How to cut an epoch's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Targets of one sample at most.
    pub window_tokens: usize,
    /// Share of windows rearranged for fill-in-the-middle.
    pub fim_share: f32,
    /// With the epoch, decides every choice.
    pub seed: u64,
    /// From 0; each one cuts elsewhere.
    pub epoch: usize,
}

/// The samples of one epoch of `files`, shuffled. Together they hold every token of the files once.
pub fn training_samples(tokenizer: &Tokenizer, files: &[SourceFile], options: &SampleOptions) -> Vec<Sample> {
    Corpus::new(tokenizer, files).training_samples(options)
}

/// Plain windows over whole files in file order, none dropped: each token of each file is a target once, with
/// at most `window_tokens` tokens before it.
pub fn held_out_windows(tokenizer: &Tokenizer, files: &[SourceFile], window_tokens: usize) -> Vec<Sample> {
    let corpus = Corpus::new(tokenizer, files);
    let mut samples = Vec::new();
    for file in &corpus.files {
        let stream: Vec<u32> = std::iter::once(corpus.marks.end).chain(file.tokens.iter().copied()).collect();
        let mut start = 0;
        while start + 1 < stream.len() {
            let end = (start + 1 + window_tokens).min(stream.len());
            let tokens = stream[start..end].to_vec();
            // The stream has one token in front of the file's.
            let bytes = file.ends[end - 2] - file.start_of(start);
            samples.push(Sample { tokens, bytes, kind: SampleKind::Window });
            start = end - 1;
        }
    }
    samples
}

/// A place to complete: what stands before and after, and what was really written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletionItem {
    /// Of the file.
    pub path: String,
    /// The file's text up to the place.
    pub prefix: String,
    /// The file's text after the target.
    pub suffix: String,
    /// From the place to the end of its scope, 1 to [`TARGET_TOKENS_MAX`] tokens, not blank.
    pub target: String,
}

/// Up to `count_max` places, spread evenly over the files whatever their sizes.
pub fn completion_items(
    tokenizer: &Tokenizer,
    files: &[SourceFile],
    count_max: usize,
    seed: u64,
) -> Vec<CompletionItem> {
    let per_file = count_max.div_ceil(files.len().max(1));
    let mut items = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut random = Random::keyed(seed, Purpose::CompletionItems, index as u64);
        let places = scopes(&file.text, Language::from_path(&file.path));
        let mut taken: Vec<Range<usize>> = Vec::new();
        for _ in 0..per_file * ITEM_ATTEMPTS {
            if taken.len() == per_file {
                break;
            }
            let Some(span) = choose_span(&file.text, &places, 0..file.text.len(), JUDGING, &mut random) else { break };
            let target = &file.text[span.clone()];
            // The first line of the target is what counts, so it must not be empty.
            let is_blank = target.trim().is_empty() || target.starts_with(['\n', '\r']);
            let is_taken = taken.iter().any(|other| other.start < span.end && span.start < other.end);
            let token_count = tokenizer.encode_plain(target).len();
            if is_taken || is_blank || !(1..=TARGET_TOKENS_MAX).contains(&token_count) {
                continue;
            }
            items.push(CompletionItem {
                path: file.path.clone(),
                prefix: file.text[..span.start].to_owned(),
                suffix: file.text[span.end..].to_owned(),
                target: target.to_owned(),
            });
            taken.push(span);
        }
    }
    if items.len() > count_max {
        Random::keyed(seed, Purpose::CompletionItems, u64::MAX).shuffle(&mut items);
        items.truncate(count_max);
    }
    items
}

/// Names of the token that ends a text, in the order we look for them.
const END_MARKS: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];

/// The special tokens that samples are built from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// Ends a file, and stands before the first. A base without one gets a line break.
    pub(crate) end: u32,
    /// A base without these learns from plain windows only.
    pub(crate) fim: Option<FimTokens>,
}

impl Marks {
    pub(crate) fn of(tokenizer: &Tokenizer) -> Marks {
        let end = END_MARKS.iter().find_map(|name| tokenizer.special(name));
        let line_break = || tokenizer.encode_plain("\n").first().copied().unwrap_or(0);
        Marks { end: end.unwrap_or_else(line_break), fim: tokenizer.fim() }
    }
}

/// Tokenised files, kept over the epochs of a run.
pub(crate) struct Corpus<'a> {
    tokenizer: &'a Tokenizer,
    marks: Marks,
    files: Vec<CorpusFile>,
}

struct CorpusFile {
    text: String,
    tokens: Vec<u32>,
    /// Byte in `text` where each token ends.
    ends: Vec<usize>,
    scopes: Vec<Scope>,
}

impl CorpusFile {
    /// Byte in `text` where token `index` starts.
    fn start_of(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }
}

/// A run of one file's tokens inside a window.
struct Piece<'a> {
    file: &'a CorpusFile,
    tokens: Range<usize>,
    /// Whether the file ends in this window, so that the end mark belongs to the piece.
    is_last: bool,
}

impl<'a> Corpus<'a> {
    /// Tokenises `files`; empty ones are left out.
    pub(crate) fn new(tokenizer: &'a Tokenizer, files: &[SourceFile]) -> Corpus<'a> {
        let files = files.iter().filter_map(|file| corpus_file(tokenizer, file)).collect();
        Corpus { tokenizer, marks: Marks::of(tokenizer), files }
    }

    /// Tokens of all files, without marks.
    pub(crate) fn token_count(&self) -> usize {
        self.files.iter().map(|file| file.tokens.len()).sum()
    }

    /// How many samples [`Corpus::training_samples`] will give, without cutting them.
    pub(crate) fn sample_count(&self, options: &SampleOptions) -> usize {
        let targets = self.token_count() + self.files.len();
        let first = first_window_tokens(options);
        if targets <= first { usize::from(targets > 0) } else { 1 + (targets - first).div_ceil(options.window_tokens) }
    }

    /// The samples of one epoch, shuffled.
    pub(crate) fn training_samples(&self, options: &SampleOptions) -> Vec<Sample> {
        let epoch = options.epoch as u64;
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        Random::keyed(options.seed, Purpose::FileOrder, epoch).shuffle(&mut order);
        let windows = self.cut_windows(&order, options);
        let mut samples: Vec<Sample> = windows
            .into_iter()
            .enumerate()
            .map(|(index, window)| {
                let mut random = Random::keyed(options.seed, Purpose::WindowCut, (epoch << 32) | index as u64);
                let is_fim = random.unit() < f64::from(options.fim_share);
                self.sample(&window, is_fim, options.window_tokens, &mut random)
            })
            .collect();
        Random::keyed(options.seed, Purpose::SampleOrder, epoch).shuffle(&mut samples);
        samples
    }

    /// Lays the files end to end, each followed by an end mark, and cuts every `window_tokens`; the first cut
    /// comes earlier by the epoch's offset.
    fn cut_windows(&self, order: &[usize], options: &SampleOptions) -> Vec<Window<'_>> {
        let mut windows: Vec<Window<'_>> = Vec::new();
        let mut room = first_window_tokens(options);
        let mut current = Window { first: self.marks.end, pieces: Vec::new() };
        for &index in order {
            let file = &self.files[index];
            let with_mark = file.tokens.len() + 1;
            let mut start = 0;
            while start < with_mark {
                let end = (start + room).min(with_mark);
                let tokens = start..end.min(file.tokens.len());
                let is_last = end == with_mark;
                // The token before the cut opens the next window, so that no token goes without being a target.
                let last_token = if is_last { self.marks.end } else { file.tokens[end - 1] };
                current.pieces.push(Piece { file, tokens, is_last });
                room -= end - start;
                start = end;
                if room == 0 {
                    let next = Window { first: last_token, pieces: Vec::new() };
                    windows.push(std::mem::replace(&mut current, next));
                    room = options.window_tokens;
                }
            }
        }
        if !current.pieces.is_empty() {
            windows.push(current);
        }
        windows
    }

    fn sample(&self, window: &Window<'_>, is_fim: bool, window_tokens: usize, random: &mut Random) -> Sample {
        let mut sample = Sample { tokens: vec![window.first], bytes: 0, kind: SampleKind::Window };
        let fits = |piece: &Piece<'_>| piece.tokens.len() >= FIM_PIECE_TOKENS_MIN;
        if let Some(fim) = self.marks.fim.filter(|_| is_fim && window.pieces.iter().any(fits)) {
            // Fill-in-the-middle needs marks of its own, so it opens with the end mark: the token before the
            // cut would stand in front of an unrelated beginning.
            sample = Sample { tokens: vec![self.marks.end], bytes: 0, kind: SampleKind::Fim };
            for piece in &window.pieces {
                if fits(piece) {
                    self.push_fim(&mut sample, fim, piece, random);
                } else {
                    self.push_plain(&mut sample, piece);
                }
            }
        } else {
            window.pieces.iter().for_each(|piece| self.push_plain(&mut sample, piece));
        }
        self.truncate(&mut sample, window_tokens);
        sample
    }

    fn push_plain(&self, sample: &mut Sample, piece: &Piece<'_>) {
        sample.tokens.extend_from_slice(&piece.file.tokens[piece.tokens.clone()]);
        sample.bytes += piece_bytes(piece).len();
        if piece.is_last {
            sample.tokens.push(self.marks.end);
        }
    }

    /// Prefix, suffix, middle and end mark. What the marks add to the piece's length is taken from the far ends
    /// of its context, never from the middle.
    fn push_fim(&self, sample: &mut Sample, fim: FimTokens, piece: &Piece<'_>, random: &mut Random) {
        let file = piece.file;
        let region = trim_to_characters(&file.text, piece_bytes(piece));
        let Some(span) = choose_span(&file.text, &file.scopes, region.clone(), LEARNING, random) else {
            return self.push_plain(sample, piece);
        };
        let encode = |range: Range<usize>| self.tokenizer.encode_plain(&file.text[range]);
        let mut prefix = encode(region.start..span.start);
        let middle = encode(span.clone());
        let mut suffix = encode(span.end..region.end);
        let room = piece.tokens.len() + usize::from(piece.is_last);
        let mut excess = (prefix.len() + middle.len() + suffix.len() + FIM_MARK_TOKENS).saturating_sub(room);
        let from_suffix = excess.min(suffix.len() / 2);
        suffix.truncate(suffix.len() - from_suffix);
        excess -= from_suffix;
        prefix.drain(..excess.min(prefix.len()));
        let bytes: usize = [&prefix, &middle, &suffix].into_iter().flatten().map(|&id| self.byte_count(id)).sum();
        sample.bytes += bytes;
        if random.unit() < SPM_SHARE {
            // The form of Bavarian et al. 2022 that shares its marks with the other: an empty prefix, and the
            // real one at the head of the middle.
            sample.tokens.extend([fim.prefix, fim.suffix].iter().chain(&suffix));
            sample.tokens.extend([fim.middle].iter().chain(&prefix));
        } else {
            sample.tokens.extend([fim.prefix].iter().chain(&prefix));
            sample.tokens.extend([fim.suffix].iter().chain(&suffix));
            sample.tokens.push(fim.middle);
        }
        sample.tokens.extend(middle);
        sample.tokens.push(self.marks.end);
    }

    /// Holds the length limit for the rare middle that encodes to more tokens on its own than in its line.
    fn truncate(&self, sample: &mut Sample, window_tokens: usize) {
        while sample.tokens.len() > window_tokens + 1 {
            if let Some(id) = sample.tokens.pop() {
                sample.bytes -= self.byte_count(id);
            }
        }
    }

    /// Bytes of text that a token stands for; none for a mark.
    fn byte_count(&self, id: u32) -> usize {
        if self.tokenizer.is_control(id) { 0 } else { self.tokenizer.token_bytes(id).len() }
    }
}

struct Window<'a> {
    first: u32,
    pieces: Vec<Piece<'a>>,
}

fn corpus_file(tokenizer: &Tokenizer, file: &SourceFile) -> Option<CorpusFile> {
    let tokens = tokenizer.encode_plain(&file.text);
    let mut end = 0;
    let ends: Vec<usize> = tokens
        .iter()
        .map(|&id| {
            end += tokenizer.token_bytes(id).len();
            end
        })
        .collect();
    // A tokenizer may normalise (NFC): then the text that counts is the one that its tokens spell.
    let text = if end == file.text.len() { file.text.clone() } else { tokenizer.decode(&tokens) };
    if tokens.is_empty() || end != text.len() {
        return None;
    }
    let scopes = scopes(&text, Language::from_path(&file.path));
    Some(CorpusFile { text, tokens, ends, scopes })
}

fn first_window_tokens(options: &SampleOptions) -> usize {
    let mut random = Random::keyed(options.seed, Purpose::WindowOffset, options.epoch as u64);
    options.window_tokens - random.below(options.window_tokens)
}

/// Bytes of a piece in its file's text; may begin or end inside a character.
fn piece_bytes(piece: &Piece<'_>) -> Range<usize> {
    match piece.tokens.is_empty() {
        true => 0..0,
        false => piece.file.start_of(piece.tokens.start)..piece.file.ends[piece.tokens.end - 1],
    }
}

fn trim_to_characters(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text.ceil_char_boundary(range.start);
    start..text.floor_char_boundary(range.end).max(start)
}

/// A span inside `region` to be completed: a random place of a random kind of scope, or a random span.
/// `None` if the region has no text.
fn choose_span(
    text: &str,
    places: &[Scope],
    region: Range<usize>,
    taste: Taste,
    random: &mut Random,
) -> Option<Range<usize>> {
    if random.unit() >= taste.random_share
        && let Some(scope) = choose_scope(places, region.clone(), random)
    {
        let mut start = scope.range.start;
        if random.unit() < INSIDE_SCOPE_SHARE {
            start = text.floor_char_boundary(start + random.below(scope.range.len()));
        }
        if !taste.is_inside_words {
            start = word_start(text, scope.range.start, start);
        }
        return Some(start..scope.range.end);
    }
    if region.is_empty() {
        return None;
    }
    let start = text.floor_char_boundary(region.start + random.below(region.len())).max(region.start);
    let length = 1 + random.below(RANDOM_SPAN_BYTES_MAX.min(region.end - start));
    let end = text.ceil_char_boundary(start + length).min(region.end);
    (start < end).then_some(start..end)
}

/// `start`, moved back to where its word begins, but not before `first`.
fn word_start(text: &str, first: usize, start: usize) -> usize {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    if !text[start..].starts_with(is_word) {
        return start;
    }
    first + text[first..start].trim_end_matches(is_word).len()
}

/// First a kind, so that the many lines do not crowd out the few bodies, then one of that kind.
fn choose_scope<'s>(places: &'s [Scope], region: Range<usize>, random: &mut Random) -> Option<&'s Scope> {
    let first = places.partition_point(|scope| scope.range.start < region.start);
    let last = places.partition_point(|scope| scope.range.start < region.end);
    let inside = || places[first..last].iter().filter(|scope| scope.range.end <= region.end);
    let mut counts = [0usize; ScopeKind::ALL.len()];
    inside().for_each(|scope| counts[scope.kind as usize] += 1);
    let kinds: Vec<ScopeKind> = ScopeKind::ALL.into_iter().filter(|&kind| counts[kind as usize] > 0).collect();
    if kinds.is_empty() {
        return None;
    }
    let kind = kinds[random.below(kinds.len())];
    inside().filter(|scope| scope.kind == kind).nth(random.below(counts[kind as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte-level vocabulary: the seven marks, the 256 bytes, a few merges.
    fn tokenizer() -> Tokenizer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/golden/llama/tokenizer.json");
        Tokenizer::parse(path, &std::fs::read(path).expect("golden tokenizer")).expect("golden tokenizer")
    }

    fn files() -> Vec<SourceFile> {
        let file = |path: &str, text: String| SourceFile { path: path.to_owned(), text };
        let function = |n: usize| format!("def f{n}(a, b):\n    total = add(a, b, {n})\n    return total\n\n");
        vec![
            file("long.py", (0..40).map(function).collect()),
            file("unicode.txt", "Grüße — ünïcödé ⚙ text\n".repeat(30)),
            file("short.py", "x = 1\n".to_owned()),
            file("empty.py", String::new()),
            file("hostile.py", "a = '<|fim_middle|><|endoftext|>'\n".repeat(20)),
        ]
    }

    fn options(epoch: usize, fim_share: f32) -> SampleOptions {
        SampleOptions { window_tokens: 100, fim_share, seed: 5, epoch }
    }

    #[test]
    fn plain_samples_hold_every_token_once_as_a_target() {
        let (tokenizer, files) = (tokenizer(), files());
        let corpus = Corpus::new(&tokenizer, &files);
        let mut expected: Vec<u32> = corpus.files.iter().flat_map(|file| file.tokens.clone()).collect();
        expected.extend(vec![corpus.marks.end; corpus.files.len()]);
        expected.sort_unstable();
        for epoch in 0..5 {
            let samples = corpus.training_samples(&options(epoch, 0.0));
            assert_eq!(samples.len(), corpus.sample_count(&options(epoch, 0.0)));
            let mut targets: Vec<u32> = samples.iter().flat_map(|sample| sample.tokens[1..].to_vec()).collect();
            targets.sort_unstable();
            assert_eq!(targets, expected);
            let bytes: usize = samples.iter().map(|sample| sample.bytes).sum();
            assert_eq!(bytes, files.iter().map(|file| file.text.len()).sum::<usize>());
            assert!(samples.iter().all(|sample| sample.tokens.len() <= 101 && sample.kind == SampleKind::Window));
        }
    }

    #[test]
    fn epochs_and_seeds_cut_differently_and_repeat_exactly() {
        let (tokenizer, files) = (tokenizer(), files());
        let samples = |options| training_samples(&tokenizer, &files, &options);
        assert_eq!(samples(options(0, 0.5)), samples(options(0, 0.5)));
        assert_ne!(samples(options(0, 0.5)), samples(options(1, 0.5)));
        assert_ne!(samples(options(0, 0.5)), samples(SampleOptions { seed: 6, ..options(0, 0.5) }));
    }

    /// Takes a sample of marks apart again: each piece's prefix, suffix and middle join to text of a file.
    fn rejoin(tokenizer: &Tokenizer, sample: &Sample) -> Vec<String> {
        let fim = tokenizer.fim().expect("has them");
        let decode = |ids: &[u32]| tokenizer.decode(ids);
        let pieces = sample.tokens[1..].split(|&id| id == sample.tokens[0]);
        pieces
            .map(|piece| {
                let at = |mark| piece.iter().position(|&id| id == mark);
                match (at(fim.prefix), at(fim.suffix), at(fim.middle)) {
                    (Some(0), Some(suffix), Some(middle)) => {
                        decode(&piece[1..suffix]) + &decode(&piece[middle + 1..]) + &decode(&piece[suffix + 1..middle])
                    }
                    (None, None, None) => decode(piece),
                    marks => panic!("marks out of order: {marks:?}"),
                }
            })
            .collect()
    }

    #[test]
    fn fim_samples_decode_back_to_the_source() {
        let (tokenizer, files) = (tokenizer(), files());
        let mut fim_count = 0;
        for epoch in 0..20 {
            for sample in training_samples(&tokenizer, &files, &options(epoch, 1.0)) {
                assert!(sample.tokens.len() <= 101);
                fim_count += usize::from(sample.kind == SampleKind::Fim);
                for text in rejoin(&tokenizer, &sample) {
                    // A cut may fall inside a character; the rest must be found as it is.
                    let text = text.trim_matches('\u{fffd}');
                    assert!(files.iter().any(|file| file.text.contains(text)), "not in any file: {text:?}");
                }
                let bytes: usize = sample.tokens[1..]
                    .iter()
                    .filter(|&&id| !tokenizer.is_control(id))
                    .map(|&id| tokenizer.token_bytes(id).len())
                    .sum();
                assert_eq!(sample.bytes, bytes);
            }
        }
        assert!(fim_count > 100, "{fim_count}");
    }

    #[test]
    fn fim_share_is_held_and_keeps_nearly_all_text() {
        let (tokenizer, files) = (tokenizer(), files());
        let text: usize = files.iter().map(|file| file.text.len()).sum();
        let (mut fim, mut all, mut bytes) = (0, 0, 0);
        for epoch in 0..40 {
            for sample in training_samples(&tokenizer, &files, &options(epoch, 0.5)) {
                all += 1;
                fim += usize::from(sample.kind == SampleKind::Fim);
                bytes += sample.bytes;
            }
        }
        let (share, kept) = (fim as f64 / all as f64, bytes as f64 / (40 * text) as f64);
        assert!((0.4..0.6).contains(&share), "{share}");
        assert!((0.9..1.0).contains(&kept), "{kept}");
    }

    #[test]
    fn text_that_looks_like_marks_stays_text() {
        let (tokenizer, files) = (tokenizer(), files());
        let hostile = &files[4..];
        let marks = Marks::of(&tokenizer);
        for window in held_out_windows(&tokenizer, hostile, 64) {
            assert!(window.tokens[1..].iter().all(|&id| !tokenizer.is_control(id)));
            assert!(window.tokens[1..].iter().all(|&id| id != marks.end));
        }
    }

    #[test]
    fn held_out_windows_cover_every_byte_in_order() {
        let (tokenizer, files) = (tokenizer(), files());
        for window_tokens in [16, 100, 10_000] {
            let windows = held_out_windows(&tokenizer, &files, window_tokens);
            let text: String = files.iter().map(|file| file.text.as_str()).collect();
            let ids: Vec<u32> = windows.iter().flat_map(|window| window.tokens[1..].to_vec()).collect();
            assert_eq!(tokenizer.decode(&ids), text);
            assert_eq!(windows.iter().map(|window| window.bytes).sum::<usize>(), text.len());
            assert!(windows.iter().all(|window| window.tokens.len() <= window_tokens + 1));
        }
        assert!(held_out_windows(&tokenizer, &[], 16).is_empty());
    }

    #[test]
    fn completion_items_are_real_places() {
        let (tokenizer, files) = (tokenizer(), files());
        let items = completion_items(&tokenizer, &files, 30, 1);
        assert!((10..=30).contains(&items.len()), "{}", items.len());
        assert_eq!(items, completion_items(&tokenizer, &files, 30, 1));
        assert_ne!(items, completion_items(&tokenizer, &files, 30, 2));
        for item in &items {
            let file = files.iter().find(|file| file.path == item.path).expect("of a file");
            assert_eq!(format!("{}{}{}", item.prefix, item.target, item.suffix), file.text);
            assert!((1..=TARGET_TOKENS_MAX).contains(&tokenizer.encode_plain(&item.target).len()));
            assert!(!item.target.lines().next().unwrap_or_default().is_empty());
        }
        assert!(completion_items(&tokenizer, &[], 30, 1).is_empty());
    }

    #[test]
    fn judged_places_begin_with_a_word() {
        let cases = [("a.name_1(x)", 2, 5, 2), ("a.name(x)", 3, 5, 3), ("x = (y)", 0, 4, 4), ("größe", 0, 4, 0)];
        for (text, first, start, expected) in cases {
            assert_eq!(word_start(text, first, start), expected, "{text}");
        }
    }
}
