//! Stop strings, found wherever tokens happen to be cut.

/// Watches released text for stop strings. What it lets through does not depend on how the text is cut into pushes.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text that may yet turn out to be the beginning of a stop string.
    held: String,
    stopped: bool,
}

/// What a push lets through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Released {
    pub text: String,
    /// A stop string is complete: `text` is the last there will be.
    pub stopped: bool,
}

impl StopMatcher {
    pub(crate) fn new(stops: Vec<String>) -> StopMatcher {
        debug_assert!(stops.iter().all(|stop| !stop.is_empty()), "an empty stop string is refused at submission");
        StopMatcher { stops, held: String::new(), stopped: false }
    }

    /// Takes more text; gives what can no longer be part of a stop string.
    pub(crate) fn push(&mut self, text: &str) -> Released {
        if self.stopped {
            return Released { text: String::new(), stopped: true };
        }
        if self.stops.is_empty() {
            return Released { text: text.to_owned(), stopped: false };
        }
        self.held.push_str(text);
        if let Some(start) = self.first_match() {
            self.stopped = true;
            self.held.truncate(start);
            return Released { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.undecided_bytes();
        let rest = self.held.split_off(self.held.len() - kept);
        Released { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The end of the text: what was held back is text after all.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start of the match that is complete first; of those, the longest. The one complete first is what a reader
    /// of single characters would see, so the cut between tokens plays no part.
    fn first_match(&self) -> Option<usize> {
        self.stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min()
            .map(|(_, start)| start)
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn undecided_bytes(&self) -> usize {
        let begins = |stop: &str| {
            let mut cuts = stop.char_indices().map(|(index, _)| index);
            cuts.rfind(|&end| self.held.ends_with(&stop[..end])).unwrap_or(0)
        };
        self.stops.iter().map(|stop| begins(stop)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes the pieces; gives the texts let through, in order, the last one from the stop or the finish.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            let released = matcher.push(piece);
            out.push(released.text);
            if released.stopped {
                return (out, true);
            }
        }
        out.push(matcher.finish());
        (out, false)
    }

    #[test]
    fn stop_strings_over_token_boundaries() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str], bool);
        let cases: &[Case] = &[
            (&[], &["a", "b"], &["a", "b", ""], false),
            (&["\n"], &["one", "\n", "two"], &["one", ""], true),
            (&["\n\n"], &["one\n", "\ntwo"], &["one", ""], true),
            (&["\n\n"], &["one\n", "two"], &["one", "\ntwo", ""], false),
            (&["\n\n"], &["one\n"], &["one", "\n"], false),
            (&["def "], &["x = d", "e", "f", " g"], &["x = ", "", "", ""], true),
            (&["def "], &["x = d", "e", "g"], &["x = ", "", "deg", ""], false),
            (&["aab"], &["a", "a", "a", "b"], &["", "", "a", ""], true),
            (&["STOP"], &["onetwoSTOPthree"], &["onetwo"], true),
            (&["STOP"], &["STOP"], &[""], true),
            (&["→end"], &["x→", "en", "d"], &["x", "", ""], true),
            (&["→end"], &["x→", "é"], &["x", "→é", ""], false),
            (&["abc", "b"], &["abc"], &["a"], true),
            (&["abc", "b"], &["a", "bc"], &["", "a"], true),
            (&["yz", "xyz"], &["wxy", "z"], &["w", ""], true),
        ];
        for (stops, pieces, expected, stopped) in cases {
            let (texts, hit) = run(stops, pieces);
            assert_eq!(texts, *expected, "stops {stops:?}, pieces {pieces:?}");
            assert_eq!(hit, *stopped, "stops {stops:?}, pieces {pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn the_cut_between_tokens_plays_no_part(
            text in "[abc→]{0,24}",
            stops in proptest::collection::vec("[abc→]{1,4}", 0..4),
            cuts in proptest::collection::vec(0usize..25, 0..8),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let mut pieces: Vec<String> = vec![String::new()];
            for (index, character) in characters.iter().enumerate() {
                if cuts.contains(&index) {
                    pieces.push(String::new());
                }
                pieces.last_mut().expect("never empty").push_str(character);
            }
            let (whole, whole_hit) = run(&stops, &[&text]);
            let (cut, cut_hit) = run(&stops, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(whole.concat(), cut.concat());
            prop_assert_eq!(whole_hit, cut_hit);
            prop_assert!(stops.iter().all(|stop| !whole.concat().contains(stop)));
        }
    }
}
