//! Norms, rotations, activations and reductions over one row.

use crate::rope::RopeTable;

/// y = x / sqrt(mean(x²) + eps) · weight, row by row of (rows, dim).
pub fn rms_norm(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32, rows: usize, dim: usize) {
    for row in 0..rows {
        let x = &x[row * dim..][..dim];
        let scale = inverse_rms(x, eps);
        for i in 0..dim {
            y[row * dim + i] = (f64::from(x[i]) * scale * f64::from(weight[i])) as f32;
        }
    }
}

/// dx of [`rms_norm`], overwritten.
pub fn rms_norm_backward(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], eps: f32, rows: usize, dim: usize) {
    for row in 0..rows {
        let x = &x[row * dim..][..dim];
        let dy = &dy[row * dim..][..dim];
        let scale = inverse_rms(x, eps);
        let along: f64 = (0..dim).map(|i| f64::from(dy[i]) * f64::from(weight[i]) * f64::from(x[i])).sum();
        for i in 0..dim {
            let direct = f64::from(dy[i]) * f64::from(weight[i]) * scale;
            let through_norm = f64::from(x[i]) * along * scale.powi(3) / dim as f64;
            dx[row * dim + i] = (direct - through_norm) as f32;
        }
    }
}

fn inverse_rms(x: &[f32], eps: f32) -> f64 {
    let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt()
}

/// Rotates each head of x (rows, heads · head_dim) by its row's position.
pub fn rope(x: &mut [f32], positions: &[u32], table: &RopeTable, rows: usize, heads: usize) {
    rotate(x, positions, table, rows, heads, 1.0);
}

/// The rotation by the opposite angle: turns d(rotated) into d(unrotated), in place.
pub fn rope_backward(x: &mut [f32], positions: &[u32], table: &RopeTable, rows: usize, heads: usize) {
    rotate(x, positions, table, rows, heads, -1.0);
}

fn rotate(x: &mut [f32], positions: &[u32], table: &RopeTable, rows: usize, heads: usize, direction: f64) {
    let half = table.head_dim() / 2;
    for row in 0..rows {
        let (cos, sin) = table.at(positions[row]);
        for head in 0..heads {
            let x = &mut x[(row * heads + head) * 2 * half..][..2 * half];
            for i in 0..half {
                let (a, b) = (f64::from(x[i]), f64::from(x[i + half]));
                let (cos, sin) = (f64::from(cos[i]), direction * f64::from(sin[i]));
                x[i] = (a * cos - b * sin) as f32;
                x[i + half] = (b * cos + a * sin) as f32;
            }
        }
    }
}

/// y = silu(gate) · up.
pub fn silu_mul(y: &mut [f32], gate: &[f32], up: &[f32], len: usize) {
    for i in 0..len {
        let gate = f64::from(gate[i]);
        y[i] = (gate * sigmoid(gate) * f64::from(up[i])) as f32;
    }
}

/// dgate and dup of [`silu_mul`], overwritten.
pub fn silu_mul_backward(dgate: &mut [f32], dup: &mut [f32], dy: &[f32], gate: &[f32], up: &[f32], len: usize) {
    for i in 0..len {
        let (dy, gate, up) = (f64::from(dy[i]), f64::from(gate[i]), f64::from(up[i]));
        let s = sigmoid(gate);
        dup[i] = (dy * gate * s) as f32;
        dgate[i] = (dy * up * s * (1.0 + gate * (1.0 - s))) as f32;
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// y += x.
pub fn add(y: &mut [f32], x: &[f32], len: usize) {
    for i in 0..len {
        y[i] += x[i];
    }
}

/// y (rows, n) += bias (n), to every row.
pub fn add_bias(y: &mut [f32], bias: &[f32], rows: usize, n: usize) {
    for row in 0..rows {
        add(&mut y[row * n..][..n], bias, n);
    }
}

/// row = exp(row) / sum(exp(row)).
pub fn softmax(row: &mut [f32]) {
    let total = f64::from(log_sum_exp(row));
    for x in row {
        *x = (f64::from(*x) - total).exp() as f32;
    }
}

/// ln(sum(exp(row))); minus infinity for an empty row.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return max;
    }
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).sum();
    (f64::from(max) + sum.ln()) as f32
}

/// The index of the largest element; the lowest such index; 0 for an empty row.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for i in 1..row.len() {
        if row[i] > row[best] {
            best = i;
        }
    }
    best
}
