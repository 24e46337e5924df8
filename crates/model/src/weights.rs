//! The weights of a base model, packed for the kernels.
//!
//! For whoever computes with them (`forward.rs`, `backward.rs`):
//!
//! ```text
//! model.weights.embed(compute, out (hidden), token)      one row of the embedding, whatever holds it
//! model.weights.layers[l].attention_norm                 (hidden), before q, k, v
//! model.weights.layers[l].{q, k, v, o, gate, up, down}   Linear; or layer.linear(Projection)
//! model.weights.layers[l].{q_norm, k_norm}               Option (head_dim), Qwen3
//! model.weights.layers[l].mlp_norm                       (hidden), before gate, up
//! model.weights.final_norm                               (hidden)
//! model.weights.head                                     Linear (vocab, hidden)
//! Linear { weight (n_out, n_in), transposed: Option (n_in, n_out) if `with_backward`, bias: Option (n_out) }
//! ```

use atelier_kernels::{Compute, Matrix};
use half::bf16;

use crate::checkpoint::Checkpoint;
use crate::digest::FieldHasher;
use crate::{Config, LoadOptions, ModelError, Projection};

/// All weights of one base.
pub(crate) struct Weights {
    /// (vocab, hidden) where the head has weights of its own; a tied model looks rows up in the head.
    pub(crate) embedding: Option<Vec<bf16>>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Vec<f32>, // (hidden)
    pub(crate) head: Linear,         // (vocab, hidden)
}

/// One transformer block.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>, // (hidden)
    pub(crate) q: Linear,                // (head_count * head_dim, hidden)
    pub(crate) k: Linear,                // (kv_head_count * head_dim, hidden)
    pub(crate) v: Linear,                // (kv_head_count * head_dim, hidden)
    pub(crate) q_norm: Option<Vec<f32>>, // (head_dim)
    pub(crate) k_norm: Option<Vec<f32>>, // (head_dim)
    pub(crate) o: Linear,                // (hidden, head_count * head_dim)
    pub(crate) mlp_norm: Vec<f32>,       // (hidden)
    pub(crate) gate: Linear,             // (intermediate, hidden)
    pub(crate) up: Linear,               // (intermediate, hidden)
    pub(crate) down: Linear,             // (hidden, intermediate)
}

/// A frozen projection `y = x Wᵀ (+ bias)`.
pub(crate) struct Linear {
    pub(crate) weight: Matrix,             // (n_out, n_in)
    pub(crate) transposed: Option<Matrix>, // (n_in, n_out), for dx = dy W
    pub(crate) bias: Option<Vec<f32>>,     // (n_out)
}

impl Layer {
    /// The projection by its name.
    pub(crate) fn linear(&self, projection: Projection) -> &Linear {
        match projection {
            Projection::Q => &self.q,
            Projection::K => &self.k,
            Projection::V => &self.v,
            Projection::O => &self.o,
            Projection::Gate => &self.gate,
            Projection::Up => &self.up,
            Projection::Down => &self.down,
        }
    }
}

impl Weights {
    /// Widens the embedding of `token` into `out` (hidden).
    pub(crate) fn embed(&self, compute: &Compute, out: &mut [f32], token: u32) {
        match &self.embedding {
            None => self.head.weight.row(compute, out, token as usize),
            Some(table) => {
                let row = &table[token as usize * out.len()..][..out.len()];
                for (out, value) in out.iter_mut().zip(row) {
                    *out = value.to_f32();
                }
            }
        }
    }

    /// Bytes of all packed weights.
    pub(crate) fn bytes(&self) -> usize {
        let of_linear = |linear: &Linear| {
            linear.weight.bytes()
                + linear.transposed.as_ref().map_or(0, Matrix::bytes)
                + linear.bias.as_ref().map_or(0, |bias| size_of_val(&bias[..]))
        };
        let of_layer = |layer: &Layer| {
            let norms = layer.attention_norm.len()
                + layer.mlp_norm.len()
                + layer.q_norm.as_ref().map_or(0, Vec::len)
                + layer.k_norm.as_ref().map_or(0, Vec::len);
            let linears: usize = Projection::ALL.iter().map(|&p| of_linear(layer.linear(p))).sum();
            linears + norms * size_of::<f32>()
        };
        self.embedding.as_ref().map_or(0, |table| size_of_val(&table[..]))
            + self.layers.iter().map(of_layer).sum::<usize>()
            + size_of_val(&self.final_norm[..])
            + of_linear(&self.head)
    }

    /// Reads every tensor of the model in a fixed order, hashing its content on the way, and packs it. Tensors are
    /// read one at a time: the peak is the packed weights and the largest single tensor.
    pub(crate) fn load(
        compute: &Compute,
        checkpoint: Checkpoint,
        config: &Config,
        options: LoadOptions,
        hasher: &mut FieldHasher,
    ) -> Result<Self, ModelError> {
        let mut reader = Reader { compute, checkpoint, config, options, hasher };
        let vocab_hidden = (config.vocab_size, config.hidden_size);
        let embedding = reader.matrix("model.embed_tokens.weight", vocab_hidden)?;
        let layers = (0..config.layer_count).map(|index| reader.layer(index)).collect::<Result<_, _>>()?;
        let final_norm = reader.vector("model.norm.weight", config.hidden_size)?;
        let (embedding, head) = if config.tied_head {
            (None, reader.pack(&embedding, vocab_hidden, None))
        } else {
            let head = reader.matrix("lm_head.weight", vocab_hidden)?;
            (Some(embedding), reader.pack(&head, vocab_hidden, None))
        };
        reader.checkpoint.refuse_unread(config.tied_head)?;
        Ok(Self { embedding, layers, final_norm, head })
    }
}

/// What reading a layer needs, in one place.
struct Reader<'a> {
    compute: &'a Compute,
    checkpoint: Checkpoint,
    config: &'a Config,
    options: LoadOptions,
    hasher: &'a mut FieldHasher,
}

impl Reader<'_> {
    fn layer(&mut self, index: usize) -> Result<Layer, ModelError> {
        let config = self.config;
        let name = |rest: &str| format!("model.layers.{index}.{rest}.weight");
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm"), config.hidden_size)?,
            q: self.linear(index, Projection::Q)?,
            k: self.linear(index, Projection::K)?,
            v: self.linear(index, Projection::V)?,
            q_norm: self.head_norm(&name("self_attn.q_norm"))?,
            k_norm: self.head_norm(&name("self_attn.k_norm"))?,
            o: self.linear(index, Projection::O)?,
            mlp_norm: self.vector(&name("post_attention_layernorm"), config.hidden_size)?,
            gate: self.linear(index, Projection::Gate)?,
            up: self.linear(index, Projection::Up)?,
            down: self.linear(index, Projection::Down)?,
        })
    }

    fn linear(&mut self, layer: usize, projection: Projection) -> Result<Linear, ModelError> {
        let (n_out, n_in) = projection.shape(self.config);
        let name = format!("model.layers.{layer}.{}", projection.module_path());
        let weight = self.matrix(&format!("{name}.weight"), (n_out, n_in))?;
        let has_bias = self.config.qkv_bias && matches!(projection, Projection::Q | Projection::K | Projection::V);
        let bias = if has_bias { Some(self.vector(&format!("{name}.bias"), n_out)?) } else { None };
        Ok(self.pack(&weight, (n_out, n_in), bias))
    }

    fn head_norm(&mut self, name: &str) -> Result<Option<Vec<f32>>, ModelError> {
        if self.config.qk_norm { self.vector(name, self.config.head_dim).map(Some) } else { Ok(None) }
    }

    fn matrix(&mut self, name: &str, (n_out, n_in): (usize, usize)) -> Result<Vec<bf16>, ModelError> {
        self.checkpoint.read_bf16(name, &[n_out, n_in], self.hasher)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        self.checkpoint.read_f32(name, &[len], self.hasher)
    }

    fn pack(&self, weight: &[bf16], (n_out, n_in): (usize, usize), bias: Option<Vec<f32>>) -> Linear {
        let transposed = self.options.with_backward.then(|| Matrix::pack_transposed(self.compute, weight, n_out, n_in));
        Linear { weight: Matrix::pack(self.compute, weight, n_out, n_in, self.options.format), transposed, bias }
    }
}
