//! Safetensors files of a base model, one or sharded, read tensor by tensor with plain positioned reads: a file that is
//! cut short while we read it is an error, where a memory map would kill the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::ModelError;
use crate::config::read_capped;
use crate::digest::FieldHasher;

/// Bytes of a safetensors header; the limit of the format's reference reader.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Bytes of `model.safetensors.index.json`; one line a tensor.
const INDEX_BYTES_MAX: u64 = 100_000_000;
/// The 8 bytes before the header that say how long it is.
const LENGTH_BYTES: u64 = 8;
/// Endings of files that Python's pickle wrote.
const PICKLE_ENDINGS: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];

const ADVICE: &str = "the folder of a base model must hold model.safetensors, or its shards and \
    model.safetensors.index.json";

/// All tensors of a model folder; knows which have been read.
pub(crate) struct Checkpoint {
    shards: Vec<Shard>,
    places: HashMap<String, usize>, // tensor -> shard
    read: HashSet<String>,
    origin: String, // the file that lists the tensors, for errors
}

struct Shard {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
}

impl Checkpoint {
    /// Opens the weights in `folder` and checks every header against its file's length.
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.exists() {
            let shard = Shard::open(single.clone())?;
            let places = shard.header.offset_keys().into_iter().map(|tensor| (tensor, 0)).collect();
            return Ok(Self::new(single, vec![shard], places));
        }
        if index.exists() {
            return Self::open_shards(folder, index);
        }
        refuse_pickle(folder)?;
        Err(ModelError::MissingFile { path: single, advice: ADVICE })
    }

    fn new(origin: PathBuf, shards: Vec<Shard>, places: HashMap<String, usize>) -> Self {
        Self { shards, places, read: HashSet::new(), origin: origin.display().to_string() }
    }

    fn open_shards(folder: &Path, index: PathBuf) -> Result<Self, ModelError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let file = index.display().to_string();
        let bytes = read_capped(&index, INDEX_BYTES_MAX, ADVICE)?;
        let Index { weight_map } =
            serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { file: file.clone(), source })?;
        let mut shards = Vec::new();
        let mut opened: HashMap<&str, usize> = HashMap::new();
        let mut places = HashMap::new();
        for (tensor, name) in &weight_map {
            let shard = match opened.get(name.as_str()) {
                Some(&shard) => shard,
                None => {
                    // The index must not lead outside its folder.
                    if Path::new(name).file_name() != Some(name.as_ref()) || !name.ends_with(".safetensors") {
                        let problem = format!("names `{name}`, which is not a safetensors file beside the index");
                        return Err(ModelError::Field { file, field: "weight_map".to_owned(), problem });
                    }
                    shards.push(Shard::open(folder.join(name))?);
                    opened.insert(name, shards.len() - 1);
                    shards.len() - 1
                }
            };
            if shards[shard].header.info(tensor).is_none() {
                let problem = format!("tensor `{tensor}` should be in it, as {file} says");
                return Err(ModelError::Damaged { file: shards[shard].name(), problem });
            }
            places.insert(tensor.clone(), shard);
        }
        Ok(Self::new(index, shards, places))
    }

    /// Reads a tensor of the given shape and rounds it to bf16.
    pub(crate) fn read_bf16(
        &mut self,
        tensor: &str,
        shape: &[usize],
        hasher: &mut FieldHasher,
    ) -> Result<Vec<bf16>, ModelError> {
        let place = self.locate(tensor, shape)?;
        let values = match place.dtype {
            Dtype::BF16 => place.read::<bf16>(hasher)?,
            Dtype::F16 => place.read::<f16>(hasher)?.iter().map(|value| bf16::from_f32(value.to_f32())).collect(),
            Dtype::F32 => place.read::<f32>(hasher)?.iter().map(|&value| bf16::from_f32(value)).collect(),
            other => return Err(place.wrong_type(other)),
        };
        place.refuse_not_finite(values.iter().position(|value| !value.is_finite()))?;
        Ok(values)
    }

    /// Reads a tensor of the given shape and widens it to f32.
    pub(crate) fn read_f32(
        &mut self,
        tensor: &str,
        shape: &[usize],
        hasher: &mut FieldHasher,
    ) -> Result<Vec<f32>, ModelError> {
        let place = self.locate(tensor, shape)?;
        let values: Vec<f32> = match place.dtype {
            Dtype::BF16 => place.read::<bf16>(hasher)?.iter().map(|value| value.to_f32()).collect(),
            Dtype::F16 => place.read::<f16>(hasher)?.iter().map(|value| value.to_f32()).collect(),
            Dtype::F32 => place.read::<f32>(hasher)?,
            other => return Err(place.wrong_type(other)),
        };
        place.refuse_not_finite(values.iter().position(|value| !value.is_finite()))?;
        Ok(values)
    }

    /// Finds a tensor and checks its shape; only then is its size to be trusted.
    fn locate<'a>(&'a mut self, tensor: &'a str, expected: &[usize]) -> Result<Place<'a>, ModelError> {
        let missing = || ModelError::MissingTensor {
            file: self.origin.clone(),
            tensor: tensor.to_owned(),
            expected: expected.to_vec(),
        };
        let shard = &self.shards[*self.places.get(tensor).ok_or_else(missing)?];
        let info = shard.header.info(tensor).ok_or_else(missing)?;
        if info.shape != expected {
            return Err(ModelError::Shape {
                file: shard.name(),
                tensor: tensor.to_owned(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        self.read.insert(tensor.to_owned());
        Ok(Place { shard, tensor, dtype: info.dtype, start: info.data_offsets.0, len: expected.iter().product() })
    }

    /// A tensor that we did not read would have changed the result: refuse it, unless it is known to be redundant.
    pub(crate) fn refuse_unread(&self, tied_head: bool) -> Result<(), ModelError> {
        let redundant =
            |tensor: &str| tensor.ends_with("rotary_emb.inv_freq") || (tied_head && tensor == "lm_head.weight");
        let unread = self.places.keys().filter(|&tensor| !self.read.contains(tensor) && !redundant(tensor)).min();
        match unread {
            None => Ok(()),
            Some(tensor) => Err(ModelError::UnexpectedTensor {
                file: self.shards[self.places[tensor]].name(),
                tensor: tensor.clone(),
                advice: "the family in config.json does not use it: the weights are of another kind",
            }),
        }
    }
}

/// One tensor of known shape in one file.
struct Place<'a> {
    shard: &'a Shard,
    tensor: &'a str,
    dtype: Dtype,
    start: usize, // bytes into the shard's data
    len: usize,   // elements
}

impl Place<'_> {
    /// Reads the elements and adds name, type, and content to the digest. The header has been checked against the
    /// file's length, so the memory taken is no larger than the file.
    fn read<T: Pod>(&self, hasher: &mut FieldHasher) -> Result<Vec<T>, ModelError> {
        let mut values = vec![T::zeroed(); self.len];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let offset = self.shard.data_start + self.start as u64;
        self.shard.file.read_exact_at(bytes, offset).map_err(|source| self.shard.cannot_read(source))?;
        hasher.field("tensor", self.tensor.as_bytes());
        hasher.field(&self.dtype.to_string(), bytes);
        Ok(values)
    }

    fn wrong_type(&self, found: Dtype) -> ModelError {
        ModelError::TensorType { file: self.shard.name(), tensor: self.tensor.to_owned(), found: found.to_string() }
    }

    fn refuse_not_finite(&self, found: Option<usize>) -> Result<(), ModelError> {
        match found {
            None => Ok(()),
            Some(index) => {
                Err(ModelError::NotFinite { file: self.shard.name(), tensor: self.tensor.to_owned(), index })
            }
        }
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, ModelError> {
        let file = File::open(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ModelError::MissingFile { path: path.clone(), advice: ADVICE },
            _ => ModelError::Read { path: path.clone(), source },
        })?;
        let name = path.display().to_string();
        let cannot_read = |source| ModelError::Read { path: path.clone(), source };
        let file_bytes = file.metadata().map_err(cannot_read)?.len();
        let mut length = [0; LENGTH_BYTES as usize];
        if file_bytes < LENGTH_BYTES {
            let problem = format!("{file_bytes} bytes are too few for a safetensors file");
            return Err(ModelError::Damaged { file: name, problem });
        }
        file.read_exact_at(&mut length, 0).map_err(cannot_read)?;
        let header_bytes = header_length(&name, u64::from_le_bytes(length), file_bytes, HEADER_BYTES_MAX)?;
        let mut header = vec![0; header_bytes];
        file.read_exact_at(&mut header, LENGTH_BYTES).map_err(cannot_read)?;
        let data_start = LENGTH_BYTES + header_bytes as u64;
        let header = parse_header(&name, &header, file_bytes - data_start)?;
        Ok(Self { path, file, header, data_start })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn cannot_read(&self, source: std::io::Error) -> ModelError {
        ModelError::Read { path: self.path.clone(), source }
    }
}

/// Checks the length that a safetensors file claims for its header before memory is taken for it.
pub(crate) fn header_length(file: &str, claimed: u64, file_bytes: u64, limit: u64) -> Result<usize, ModelError> {
    if claimed > limit {
        return Err(ModelError::TooLarge { file: format!("the header of {file}"), found: claimed, limit });
    }
    if claimed > file_bytes.saturating_sub(LENGTH_BYTES) {
        let problem = format!("a header of {claimed} bytes does not fit in a file of {file_bytes}");
        return Err(ModelError::Damaged { file: file.to_owned(), problem });
    }
    Ok(claimed as usize)
}

/// Parses a header and checks that its tensors cover exactly the `data_bytes` that follow it.
pub(crate) fn parse_header(file: &str, header: &[u8], data_bytes: u64) -> Result<Metadata, ModelError> {
    let damaged = |problem: String| ModelError::Damaged { file: file.to_owned(), problem };
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| damaged(format!("its header is wrong: {error}")))?;
    let claimed = metadata.data_len() as u64;
    if claimed > data_bytes {
        let first_cut = metadata
            .offset_keys()
            .into_iter()
            .find(|tensor| metadata.info(tensor).is_some_and(|info| info.data_offsets.1 as u64 > data_bytes));
        let tensor = first_cut.unwrap_or_default();
        return Err(damaged(format!(
            "it is cut short in tensor `{tensor}`: {data_bytes} bytes of data, the header says {claimed}"
        )));
    }
    if claimed < data_bytes {
        return Err(damaged(format!("{data_bytes} bytes of data, the header says {claimed}")));
    }
    Ok(metadata)
}

/// Says so where the only weights are pickles, which run code when they are opened.
fn refuse_pickle(folder: &Path) -> Result<(), ModelError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    match names.filter(|name| PICKLE_ENDINGS.iter().any(|ending| name.ends_with(ending))).min() {
        None => Ok(()),
        Some(name) => Err(ModelError::Unsupported {
            file: folder.join(name).display().to_string(),
            what: "a pickle checkpoint".to_owned(),
            advice: "convert it to safetensors where you trust it (save_pretrained with safe_serialization)",
        }),
    }
}
