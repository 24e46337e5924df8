//! Scaled dot-product attention, causal, grouped-query.

use std::ops::Range;

use crate::attention::{AttentionRow, PagedCache};

/// As the fast kernel: out (rows, heads · head_dim), each row over positions 0..=position of its block table.
pub fn attention_paged(
    out: &mut [f32],
    q: &[f32],
    cache: PagedCache<'_>,
    rows: &[AttentionRow<'_>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    for (index, row) in rows.iter().enumerate() {
        let slots: Vec<usize> = (0..=row.position as usize).map(|position| cache.offset(row, position)).collect();
        for head in 0..heads {
            let kv_start = head / (heads / kv_heads) * head_dim;
            let at = (index * heads + head) * head_dim;
            let key = |j: usize| &cache.keys[slots[j] + kv_start..][..head_dim];
            let (weights, _) = softmax_weights(&q[at..][..head_dim], slots.len(), key);
            for d in 0..head_dim {
                let sum: f64 =
                    (0..slots.len()).map(|j| weights[j] * f64::from(cache.values[slots[j] + kv_start + d])).sum();
                out[at + d] = sum as f32;
            }
        }
    }
}

/// As the fast kernel: out (rows, heads · head_dim) and lse (rows, heads), each row over its sequence up to itself.
pub fn attention_causal(
    out: &mut [f32],
    lse: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sequences: &[Range<usize>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    let width = kv_heads * head_dim;
    out.fill(0.0);
    lse.fill(0.0);
    for sequence in sequences {
        for row in sequence.clone() {
            for head in 0..heads {
                let kv_start = head / (heads / kv_heads) * head_dim;
                let at = (row * heads + head) * head_dim;
                let key = |j: usize| &k[(sequence.start + j) * width + kv_start..][..head_dim];
                let count = row - sequence.start + 1;
                let (weights, total) = softmax_weights(&q[at..][..head_dim], count, key);
                lse[row * heads + head] = total as f32;
                for d in 0..head_dim {
                    let value = |j: usize| f64::from(v[(sequence.start + j) * width + kv_start + d]);
                    out[at + d] = (0..count).map(|j| weights[j] * value(j)).sum::<f64>() as f32;
                }
            }
        }
    }
}

/// As the fast kernel: dq, dk, dv of [`attention_causal`], all overwritten; zeros in rows of no sequence.
pub fn attention_causal_backward(
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    dout: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    _out: &[f32],
    _lse: &[f32],
    sequences: &[Range<usize>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    let width = kv_heads * head_dim;
    let scale = 1.0 / (head_dim as f64).sqrt();
    dq.fill(0.0);
    dk.fill(0.0);
    dv.fill(0.0);
    let mut dk_sum = vec![0.0_f64; k.len()];
    let mut dv_sum = vec![0.0_f64; v.len()];
    for sequence in sequences {
        for row in sequence.clone() {
            for head in 0..heads {
                let kv_start = head / (heads / kv_heads) * head_dim;
                let kv_at = |j: usize| (sequence.start + j) * width + kv_start;
                let at = (row * heads + head) * head_dim;
                let (q, dout) = (&q[at..][..head_dim], &dout[at..][..head_dim]);
                let count = row - sequence.start + 1;
                let (p, _) = softmax_weights(q, count, |j| &k[kv_at(j)..][..head_dim]);
                let dp: Vec<f64> = (0..count).map(|j| dot(dout, &v[kv_at(j)..][..head_dim])).collect();
                let mean: f64 = (0..count).map(|j| p[j] * dp[j]).sum();
                let ds: Vec<f64> = (0..count).map(|j| p[j] * (dp[j] - mean) * scale).collect();
                for d in 0..head_dim {
                    dq[at + d] = (0..count).map(|j| ds[j] * f64::from(k[kv_at(j) + d])).sum::<f64>() as f32;
                    for j in 0..count {
                        dk_sum[kv_at(j) + d] += ds[j] * f64::from(q[d]);
                        dv_sum[kv_at(j) + d] += p[j] * f64::from(dout[d]);
                    }
                }
            }
        }
        for i in sequence.start * width..sequence.end * width {
            dk[i] = dk_sum[i] as f32;
            dv[i] = dv_sum[i] as f32;
        }
    }
}

/// The weights of `count` keys for one query, and the logarithm of their sum.
fn softmax_weights<'a>(q: &[f32], count: usize, key: impl Fn(usize) -> &'a [f32]) -> (Vec<f64>, f64) {
    let scale = 1.0 / (q.len() as f64).sqrt();
    let scores: Vec<f64> = (0..count).map(|j| dot(q, key(j)) * scale).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = max + scores.iter().map(|score| (score - max).exp()).sum::<f64>().ln();
    (scores.iter().map(|score| (score - total).exp()).collect(), total)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
