//! Everything a run needs to go on as if it had not been stopped, as bytes.
//!
//! Layout: magic (8), version (u32), payload bytes (u64), blake3 of the payload (32), payload. The payload is the
//! fingerprint of base, options and files (32), counters, the curve, then f32 matrices in the order of
//! `Adapter::pairs`. All little-endian. Random numbers need no state: they are keyed by seed and step.

use atelier_model::Adapter;

use crate::error::CheckpointError;
use crate::optimiser::Optimiser;
use crate::train::CurvePoint;

const MAGIC: &[u8; 8] = b"ATLTRAIN";

/// Grows with every change of the layout or of what training does with equal options.
const VERSION: u32 = 1;

const HEADER_BYTES: usize = 8 + 4 + 8 + 32;

/// Points of the curve in a file that we believe; a run validates a few times per epoch.
const CURVE_POINTS_MAX: u64 = 100_000;

/// What changes while training.
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: usize,
    /// Samples and target tokens learned from so far.
    pub(crate) samples: usize,
    pub(crate) tokens: usize,
    /// Loss of the base, of the best adapter, and validations since that.
    pub(crate) base_loss: f64,
    pub(crate) best_loss: f64,
    pub(crate) stale: usize,
    pub(crate) curve: Vec<CurvePoint>,
    pub(crate) adapter: Adapter,
    pub(crate) best: Adapter,
    pub(crate) optimiser: Optimiser,
}

impl State {
    /// The state as a file.
    pub(crate) fn to_bytes(&self, fingerprint: &[u8; 32]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.adapter.bytes() * 4 + 1024);
        payload.extend_from_slice(fingerprint);
        for count in [self.step, self.samples, self.tokens, self.stale, self.curve.len()] {
            payload.extend_from_slice(&(count as u64).to_le_bytes());
        }
        for loss in [self.base_loss, self.best_loss] {
            payload.extend_from_slice(&loss.to_le_bytes());
        }
        for point in &self.curve {
            payload.extend_from_slice(&(point.step as u64).to_le_bytes());
            payload.extend_from_slice(&point.train_loss.to_le_bytes());
            payload.extend_from_slice(&point.validation_loss.to_le_bytes());
        }
        let matrices = self.adapter.pairs().zip(self.best.pairs()).zip(&self.optimiser.pairs);
        for (((_, _, pair), (_, _, best)), moments) in matrices {
            let (a, b) = (&moments.a, &moments.b_t);
            for matrix in [&pair.a, &pair.b_t, &best.a, &best.b_t, &a.0, &a.1, &b.0, &b.1] {
                payload.extend(matrix.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        let mut file = Vec::with_capacity(HEADER_BYTES + payload.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        file.extend_from_slice(blake3::hash(&payload).as_bytes());
        file.extend_from_slice(&payload);
        file
    }

    /// Reads a file back into the shape of a fresh state.
    ///
    /// # Errors
    /// What is wrong with the file; the state is then spoiled.
    pub(crate) fn restore(&mut self, file: &[u8], fingerprint: &[u8; 32]) -> Result<(), CheckpointError> {
        let mut payload = Reader { bytes: checked_payload(file)? };
        if payload.array::<32>()? != *fingerprint {
            return Err(CheckpointError::Mismatch);
        }
        self.step = payload.count()?;
        self.samples = payload.count()?;
        self.tokens = payload.count()?;
        self.stale = payload.count()?;
        let points = payload.u64()?;
        self.base_loss = payload.f64()?;
        self.best_loss = payload.f64()?;
        if points > CURVE_POINTS_MAX {
            return Err(CheckpointError::Damaged);
        }
        self.curve.clear();
        for _ in 0..points {
            let (step, train_loss, validation_loss) = (payload.count()?, payload.f64()?, payload.f64()?);
            self.curve.push(CurvePoint { step, train_loss, validation_loss });
        }
        let matrices = self.adapter.pairs_mut().zip(self.best.pairs_mut()).zip(&mut self.optimiser.pairs);
        for (((_, _, pair), (_, _, best)), moments) in matrices {
            let (a, b) = (&mut moments.a, &mut moments.b_t);
            let all = [&mut pair.a, &mut pair.b_t, &mut best.a, &mut best.b_t, &mut a.0, &mut a.1, &mut b.0, &mut b.1];
            for matrix in all {
                payload.fill(matrix)?;
            }
        }
        if payload.bytes.is_empty() { Ok(()) } else { Err(CheckpointError::Damaged) }
    }
}

fn checked_payload(file: &[u8]) -> Result<&[u8], CheckpointError> {
    let mut header = Reader { bytes: file };
    if header.array::<8>().is_ok_and(|magic| magic != *MAGIC) || file.len() < MAGIC.len() {
        return Err(CheckpointError::NotACheckpoint);
    }
    let found = u32::from_le_bytes(header.array()?);
    if found != VERSION {
        return Err(CheckpointError::Version { found, known: VERSION });
    }
    let (payload_bytes, hash) = (header.u64()?, header.array::<32>()?);
    let payload = header.bytes;
    if payload.len() as u64 != payload_bytes || blake3::hash(payload) != hash {
        return Err(CheckpointError::Damaged);
    }
    Ok(payload)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (first, rest) = self.bytes.split_first_chunk().ok_or(CheckpointError::Damaged)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn u64(&mut self) -> Result<u64, CheckpointError> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Result<usize, CheckpointError> {
        usize::try_from(self.u64()?).map_err(|_| CheckpointError::Damaged)
    }

    fn f64(&mut self) -> Result<f64, CheckpointError> {
        self.array().map(f64::from_le_bytes)
    }

    fn fill(&mut self, values: &mut [f32]) -> Result<(), CheckpointError> {
        let (bytes, rest) = self.bytes.split_at_checked(size_of_val(values)).ok_or(CheckpointError::Damaged)?;
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        self.bytes = rest;
        Ok(())
    }
}
