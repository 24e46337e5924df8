//! What can be wrong with a model folder, an adapter, or a batch, and what to do about it.

use std::path::PathBuf;

use crate::Digest;

/// Everything that loading or running a model can refuse. Each message names the file or field and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },

    /// A file that a model folder must have is not there.
    #[error("{} is missing: {advice}", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },

    /// A file is larger than anything of its kind that we accept.
    #[error("{file} has {found} bytes, more than the {limit} accepted for it")]
    TooLarge {
        /// The file, or the part of one.
        file: String,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// A file is not the JSON it should be.
    #[error("{file} is not valid JSON of its kind")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },

    /// A field has a value that no model can have.
    #[error("{file}: `{field}` {problem}")]
    Field {
        /// The file.
        file: String,
        /// The JSON field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },

    /// Something valid that this program does not implement.
    #[error("{file}: {what} is not supported; {advice}")]
    Unsupported {
        /// The file.
        file: String,
        /// The feature, with its value.
        what: String,
        /// What to do instead.
        advice: &'static str,
    },

    /// A safetensors file is cut short or its header contradicts itself.
    #[error("{file} is damaged: {problem}; copy or download it again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },

    /// A tensor that the configuration asks for is not in the checkpoint.
    #[error("{file}: tensor `{tensor}` of shape {expected:?} is missing; does config.json belong to these weights?")]
    MissingTensor {
        /// The file, or the index of the files.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },

    /// A tensor that the configuration has no place for.
    #[error("{file}: tensor `{tensor}` has no place in this model; {advice}")]
    UnexpectedTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What to do.
        advice: &'static str,
    },

    /// A tensor has another shape than the configuration says.
    #[error(
        "{file}: tensor `{tensor}` has shape {found:?}, expected {expected:?}; \
         do the configuration and the weights belong together?"
    )]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A tensor holds numbers of a kind we do not read.
    #[error("{file}: tensor `{tensor}` has type {found}; convert the weights to bf16, f16 or f32")]
    TensorType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
    },

    /// A weight is infinite or not a number.
    #[error("{file}: tensor `{tensor}` holds a value that is not finite at element {index}; the weights are spoiled")]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Index of the first such element, counted row by row.
        index: usize,
    },

    /// The tokenizer file cannot be used.
    #[error("{file}: {problem}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What the tokenizer library said.
        problem: String,
    },

    /// The adapter says that it was trained on other weights.
    #[error("the adapter was trained on base {found}, this base is {expected}; train it again on this base")]
    OtherBase {
        /// This base.
        expected: Digest,
        /// The base in the adapter's metadata.
        found: Digest,
    },

    /// A batch asks for what the model cannot compute.
    #[error("row {row}: {problem}")]
    Row {
        /// Index of the row in the batch.
        row: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// The model was loaded without what training needs.
    #[error("the model was loaded for inference only; load it with `with_backward` to train")]
    NoBackward,
}
