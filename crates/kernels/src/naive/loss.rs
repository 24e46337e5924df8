//! The loss and the optimiser's step.

use crate::adamw::AdamW;
use crate::naive::log_sum_exp;

/// losses (rows) = `-ln softmax(row of logits)[target]`; 0 where the target is negative.
pub fn cross_entropy(losses: &mut [f32], logits: &[f32], targets: &[i32], rows: usize, vocab: usize) {
    for row in 0..rows {
        let logits = &logits[row * vocab..][..vocab];
        losses[row] = match usize::try_from(targets[row]) {
            Ok(target) => log_sum_exp(logits) - logits[target],
            Err(_) => 0.0,
        };
    }
}

/// As [`cross_entropy`], and replaces each logit by scale · (softmax - onehot), or 0 in an ignored row.
pub fn cross_entropy_backward(
    logits_to_dlogits: &mut [f32],
    losses: &mut [f32],
    targets: &[i32],
    scale: f32,
    rows: usize,
    vocab: usize,
) {
    cross_entropy(losses, logits_to_dlogits, targets, rows, vocab);
    for row in 0..rows {
        let logits = &mut logits_to_dlogits[row * vocab..][..vocab];
        let Ok(target) = usize::try_from(targets[row]) else {
            logits.fill(0.0);
            continue;
        };
        let total = f64::from(log_sum_exp(logits));
        for (i, x) in logits.iter_mut().enumerate() {
            let onehot = if i == target { 1.0 } else { 0.0 };
            *x = (f64::from(scale) * ((f64::from(*x) - total).exp() - onehot)) as f32;
        }
    }
}

/// One step of AdamW with decoupled weight decay; see [`AdamW`].
pub fn adamw(param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], options: &AdamW) {
    let (beta1, beta2) = (f64::from(options.beta1), f64::from(options.beta2));
    let lr = f64::from(options.lr);
    let correction1 = 1.0 - beta1.powf(options.step as f64);
    let correction2 = 1.0 - beta2.powf(options.step as f64);
    for i in 0..param.len() {
        let grad = f64::from(grad[i]);
        m[i] = (beta1 * f64::from(m[i]) + (1.0 - beta1) * grad) as f32;
        v[i] = (beta2 * f64::from(v[i]) + (1.0 - beta2) * grad * grad) as f32;
        let m_hat = f64::from(m[i]) / correction1;
        let v_hat = f64::from(v[i]) / correction2;
        let decayed = f64::from(param[i]) * (1.0 - lr * f64::from(options.weight_decay));
        param[i] = (decayed - lr * m_hat / (v_hat.sqrt() + f64::from(options.eps))) as f32;
    }
}
