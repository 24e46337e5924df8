//! The optimiser's step.

use crate::compute::Compute;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, load_at, store_at};

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

/// What an element costs, in element operations.
const ELEMENT_WORK: usize = 8;

/// One step: updates `m`, `v` and `param` from `grad`, all of one length.
///
/// # Panics
/// If the lengths differ, or the step is 0.
pub fn adamw(compute: &Compute, param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], options: &AdamW) {
    let len = param.len();
    assert_eq!((m.len(), v.len(), grad.len()), (len, len, len));
    assert!(options.step > 0, "steps count from 1");
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(options.step as f64);
    let scales = Scales {
        m: (1.0 / correction(options.beta1)) as f32,
        v: (1.0 / correction(options.beta2)) as f32,
        decay: 1.0 - options.lr * options.weight_decay,
    };
    let (param, m, v) = (SharedMut::new(param), SharedMut::new(m), SharedMut::new(v));
    compute.parallel_ranges(len, ELEMENT_WORK, &|range| {
        // SAFETY: each element belongs to one task.
        let (param, m, v) = unsafe { (param.range(range.clone()), m.range(range.clone()), v.range(range.clone())) };
        compute.tier().run(Step { param, m, v, grad: &grad[range], options, scales });
    });
}

/// What is the same for all elements of a step.
#[derive(Clone, Copy)]
struct Scales {
    m: f32,
    v: f32,
    decay: f32,
}

struct Step<'a> {
    param: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    grad: &'a [f32],
    options: &'a AdamW,
    scales: Scales,
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let AdamW { lr, beta1, beta2, eps, .. } = *self.options;
        let (beta1, beta2) = ((s.splat(beta1), s.splat(1.0 - beta1)), (s.splat(beta2), s.splat(1.0 - beta2)));
        let (m_scale, v_scale, decay) = (s.splat(self.scales.m), s.splat(self.scales.v), s.splat(self.scales.decay));
        let (lr, eps) = (s.splat(-lr), s.splat(eps));
        for at in (0..self.grad.len()).step_by(S::LANES) {
            let grad = load_at(s, self.grad, at);
            let m = s.fma(beta1.0, load_at(s, self.m, at), s.mul(beta1.1, grad));
            let v = s.fma(beta2.0, load_at(s, self.v, at), s.mul(beta2.1, s.mul(grad, grad)));
            store_at(s, self.m, at, m);
            store_at(s, self.v, at, v);
            let update = s.div(s.mul(m, m_scale), s.add(s.sqrt(s.mul(v, v_scale)), eps));
            store_at(s, self.param, at, s.fma(lr, update, s.mul(load_at(s, self.param, at), decay)));
        }
    }
}
