//! Cross entropy over the vocabulary.

use crate::compute::Compute;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, exp, load_at, store_at};
use crate::softmax::log_sum_exp;

/// What one logit costs, in element operations.
const LOGIT_WORK: usize = 8;

/// losses (rows) = `-ln softmax(row of logits)[target]`; 0 where the target is negative.
///
/// # Panics
/// If a slice is not of the size stated, or a target is not below `vocab`.
pub fn cross_entropy(
    compute: &Compute,
    losses: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    rows: usize,
    vocab: usize,
) {
    assert_eq!((losses.len(), logits.len(), targets.len()), (rows, rows * vocab, rows));
    let losses = SharedMut::new(losses);
    compute.parallel_ranges(rows, LOGIT_WORK * vocab, &|rows| {
        for row in rows {
            // SAFETY: each row belongs to one task.
            let loss = unsafe { &mut losses.range(row..row + 1)[0] };
            let logits = &logits[row * vocab..][..vocab];
            *loss = match target_index(targets[row], vocab) {
                Some(target) => log_sum_exp(compute.tier(), logits) - logits[target],
                None => 0.0,
            };
        }
    });
}

/// As [`cross_entropy`], and replaces each logit by scale · (softmax - onehot), or 0 in an ignored row.
///
/// # Panics
/// As [`cross_entropy`].
pub fn cross_entropy_backward(
    compute: &Compute,
    logits_to_dlogits: &mut [f32],
    losses: &mut [f32],
    targets: &[i32],
    scale: f32,
    rows: usize,
    vocab: usize,
) {
    assert_eq!((losses.len(), logits_to_dlogits.len(), targets.len()), (rows, rows * vocab, rows));
    let (losses, logits) = (SharedMut::new(losses), SharedMut::new(logits_to_dlogits));
    compute.parallel_ranges(rows, 2 * LOGIT_WORK * vocab, &|rows| {
        for row in rows {
            // SAFETY: each row belongs to one task.
            let (loss, logits) =
                unsafe { (&mut losses.range(row..row + 1)[0], logits.range(row * vocab..(row + 1) * vocab)) };
            let Some(target) = target_index(targets[row], vocab) else {
                *loss = 0.0;
                logits.fill(0.0);
                continue;
            };
            let total = log_sum_exp(compute.tier(), logits);
            *loss = total - logits[target];
            compute.tier().run(ScaledSoftmax { logits, total, scale });
            logits[target] -= scale;
        }
    });
}

fn target_index(target: i32, vocab: usize) -> Option<usize> {
    let target = usize::try_from(target).ok()?;
    assert!(target < vocab, "target {target} is beyond the vocabulary of {vocab}");
    Some(target)
}

/// x = scale · exp(x - total).
struct ScaledSoftmax<'a> {
    logits: &'a mut [f32],
    total: f32,
    scale: f32,
}

impl Kernel for ScaledSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (negative, scale) = (s.splat(-self.total), s.splat(self.scale));
        for at in (0..self.logits.len()).step_by(S::LANES) {
            let p = exp(s, s.add(load_at(s, self.logits, at), negative));
            store_at(s, self.logits, at, s.mul(p, scale));
        }
    }
}
