//! The optimiser's step.

use crate::compute::Compute;

/// Options of one AdamW step (Loshchilov and Hutter, decoupled weight decay).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled decay: the parameter shrinks by lr · weight_decay.
    pub weight_decay: f32,
    /// Number of this step, the first being 1: for the correction of the moments' bias.
    pub step: u64,
}

/// One step: updates `m`, `v` and `param` from `grad`, all of one length.
pub fn adamw(_compute: &Compute, param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], options: &AdamW) {
    crate::naive::adamw(param, m, v, grad, options);
}
