//! The naive backward kernels against finite differences of the naive forward ones; the fast ones are held to these.

use std::ops::Range;

use atelier_kernels::{RopeTable, naive};

/// Step of the central differences: its cube and the rounding of f32 results by it are of the same size.
const STEP: f32 = 1e-2;
const ERROR: f64 = 2e-3;

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Holds `gradient` of the sum of dy · forward(x) against differences in every element of x.
fn check(what: &str, x: &[f32], dy: &[f32], gradient: &[f32], forward: impl Fn(&[f32]) -> Vec<f32>) {
    assert_eq!(gradient.len(), x.len());
    let objective = |x: &[f32]| forward(x).iter().zip(dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum::<f64>();
    for i in 0..x.len() {
        let (mut above, mut below) = (x.to_vec(), x.to_vec());
        above[i] += STEP;
        below[i] -= STEP;
        let step = f64::from(above[i]) - f64::from(below[i]);
        let expected = (objective(&above) - objective(&below)) / step;
        let got = f64::from(gradient[i]);
        assert!((got - expected).abs() <= ERROR * (1.0 + expected.abs()), "{what} at {i}: {got} is not {expected}");
    }
}

#[test]
fn rms_norm() {
    let (rows, dim) = (3, 11);
    let (x, dy, weight) = (numbers(rows * dim, 1), numbers(rows * dim, 2), numbers(dim, 3));
    let mut dx = vec![f32::NAN; rows * dim];
    naive::rms_norm_backward(&mut dx, &dy, &x, &weight, 1e-3, rows, dim);
    check("dx", &x, &dy, &dx, |x| {
        let mut y = vec![0.0; rows * dim];
        naive::rms_norm(&mut y, x, &weight, 1e-3, rows, dim);
        y
    });
}

#[test]
fn rope() {
    let (rows, heads, table) = (3, 2, RopeTable::new(6, 100.0, 50));
    let positions = [0, 7, 49];
    let (x, dy) = (numbers(rows * heads * 6, 1), numbers(rows * heads * 6, 2));
    let mut dx = dy.clone();
    naive::rope_backward(&mut dx, &positions, &table, rows, heads);
    check("dx", &x, &dy, &dx, |x| {
        let mut y = x.to_vec();
        naive::rope(&mut y, &positions, &table, rows, heads);
        y
    });
}

#[test]
fn silu_mul() {
    let len = 40;
    let (gate, up, dy) = (numbers(len, 1), numbers(len, 2), numbers(len, 3));
    let gate: Vec<f32> = gate.iter().map(|x| 4.0 * x).collect();
    let (mut dgate, mut dup) = (vec![f32::NAN; len], vec![f32::NAN; len]);
    naive::silu_mul_backward(&mut dgate, &mut dup, &dy, &gate, &up, len);
    let forward = |gate: &[f32], up: &[f32]| {
        let mut y = vec![0.0; len];
        naive::silu_mul(&mut y, gate, up, len);
        y
    };
    check("dgate", &gate, &dy, &dgate, |gate| forward(gate, &up));
    check("dup", &up, &dy, &dup, |up| forward(&gate, up));
}

#[test]
fn cross_entropy() {
    let (rows, vocab, scale) = (4, 9, 0.5);
    let logits: Vec<f32> = numbers(rows * vocab, 1).iter().map(|x| 3.0 * x).collect();
    let targets = [3, -1, 0, 8];
    let (mut dlogits, mut losses) = (logits.clone(), vec![0.0; rows]);
    naive::cross_entropy_backward(&mut dlogits, &mut losses, &targets, scale, rows, vocab);
    check("dlogits", &logits, &vec![scale; rows], &dlogits, |logits| {
        let mut losses = vec![0.0; rows];
        naive::cross_entropy(&mut losses, logits, &targets, rows, vocab);
        losses
    });
}

#[test]
fn attention() {
    let (rows, heads, kv_heads, head_dim) = (7, 4, 2, 5);
    let sequences: [Range<usize>; 2] = [0..5, 5..7];
    let (q_len, kv_len) = (rows * heads * head_dim, rows * kv_heads * head_dim);
    let (q, k, v, dout) = (numbers(q_len, 1), numbers(kv_len, 2), numbers(kv_len, 3), numbers(q_len, 4));
    let forward = |q: &[f32], k: &[f32], v: &[f32]| {
        let (mut out, mut lse) = (vec![0.0; q_len], vec![0.0; rows * heads]);
        naive::attention_causal(&mut out, &mut lse, q, k, v, &sequences, heads, kv_heads, head_dim);
        (out, lse)
    };
    let (out, lse) = forward(&q, &k, &v);
    let (mut dq, mut dk, mut dv) = (vec![f32::NAN; q_len], vec![f32::NAN; kv_len], vec![f32::NAN; kv_len]);
    naive::attention_causal_backward(
        &mut dq, &mut dk, &mut dv, &dout, &q, &k, &v, &out, &lse, &sequences, heads, kv_heads, head_dim,
    );
    check("dq", &q, &dout, &dq, |q| forward(q, &k, &v).0);
    check("dk", &k, &dout, &dk, |k| forward(&q, k, &v).0);
    check("dv", &v, &dout, &dv, |v| forward(&q, &k, v).0);
}
