//! Which rows go into a step.

/// Most rows of a step whose logits are made for prompt log probabilities: a row of logits is the size of the
/// vocabulary, so 64 rows of a large one are about 40 MB.
pub(crate) const PROMPT_LOGIT_ROWS_MAX: usize = 64;

/// What one running sequence asks of the step, in order of admission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Tokens whose keys and values are not yet computed; 1 while decoding.
    pub pending: usize,
    /// Logits are needed for every row, not for the last alone.
    pub logits_for_all: bool,
}

/// Rows granted to the sequence at `sequence` in the order of demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub sequence: usize,
    pub rows: usize,
}

/// Shares a step's rows out. Sequences that need a single row (every one that decodes) come first, so decoding never
/// waits for prompts; then prompts in order of admission, each up to `prefill_chunk` rows.
pub(crate) fn share_rows(demands: &[Demand], step_token_budget: usize, prefill_chunk: usize) -> Vec<Share> {
    let mut left = step_token_budget;
    let mut prompt_logit_rows_left = PROMPT_LOGIT_ROWS_MAX;
    let mut shares = Vec::with_capacity(demands.len());
    let singles = demands.iter().enumerate().filter(|(_, demand)| demand.pending == 1);
    let chunks = demands.iter().enumerate().filter(|(_, demand)| demand.pending > 1);
    for (sequence, demand) in singles.chain(chunks) {
        let mut rows = demand.pending.min(prefill_chunk).min(left);
        if demand.logits_for_all && demand.pending > 1 {
            rows = rows.min(prompt_logit_rows_left);
            prompt_logit_rows_left -= rows;
        }
        left -= rows;
        if rows > 0 {
            shares.push(Share { sequence, rows });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decoding_first_then_prompts_in_order() {
        type Case = (&'static [usize], usize, usize, &'static [(usize, usize)]);
        let cases: &[Case] = &[
            (&[], 8, 4, &[]),
            (&[1, 1, 1], 8, 4, &[(0, 1), (1, 1), (2, 1)]),
            (&[10, 1, 1], 8, 4, &[(1, 1), (2, 1), (0, 4)]),
            (&[10, 10, 10], 8, 4, &[(0, 4), (1, 4)]),
            (&[3, 10, 1], 8, 4, &[(2, 1), (0, 3), (1, 4)]),
            (&[100], 8, 64, &[(0, 8)]),
        ];
        for (pending, budget, chunk, expected) in cases {
            let demands: Vec<Demand> =
                pending.iter().map(|&pending| Demand { pending, logits_for_all: false }).collect();
            let shares: Vec<(usize, usize)> =
                share_rows(&demands, *budget, *chunk).iter().map(|share| (share.sequence, share.rows)).collect();
            assert_eq!(shares, *expected, "{pending:?}");
        }
    }

    proptest! {
        #[test]
        fn within_budget_and_never_idle(
            demands in proptest::collection::vec((1usize..200, any::<bool>()), 1..16),
            extra in 0usize..200,
            chunk in 1usize..100,
        ) {
            let demands: Vec<Demand> = demands
                .into_iter()
                .map(|(pending, logits_for_all)| Demand { pending, logits_for_all })
                .collect();
            let budget = demands.len() + extra;
            let shares = share_rows(&demands, budget, chunk);
            let total: usize = shares.iter().map(|share| share.rows).sum();
            prop_assert!(total >= 1 && total <= budget);
            let logit_rows: usize = shares
                .iter()
                .filter(|share| demands[share.sequence].logits_for_all && demands[share.sequence].pending > 1)
                .map(|share| share.rows)
                .sum();
            prop_assert!(logit_rows <= PROMPT_LOGIT_ROWS_MAX);
            for (sequence, demand) in demands.iter().enumerate() {
                let rows: usize =
                    shares.iter().filter(|share| share.sequence == sequence).map(|share| share.rows).sum();
                prop_assert!(rows <= demand.pending.min(chunk));
                prop_assert!(demand.pending > 1 || rows == 1, "a decoding sequence always has its row");
            }
        }
    }
}
