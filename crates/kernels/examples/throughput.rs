//! Prints what the kernels reach, per tier: arithmetic and memory throughput of the products with frozen weights
//! and of attention, and the time of the small kernels.
//!
//! `cargo run -p atelier-kernels --example throughput [-- THREADS [TIER [PART-OF-A-NAME]]]`

use std::io::{self, Write};
use std::time::{Duration, Instant};

use atelier_kernels as kernels;
use atelier_kernels::{
    AttentionRow, Compute, LoraMatrices, LoraProduct, Mat, MatMut, Matrix, PagedCache, Tier, WeightFormat,
};
use half::bf16;

/// Time given to each figure.
const MEASUREMENT: Duration = Duration::from_millis(150);
/// One sample is at least this long, so that reading the clock does not count.
const SAMPLE_MIN: Duration = Duration::from_micros(50);
/// Shapes (n_out, n_in): square, a model of hidden size 320, one of hidden size 896, and more than the caches hold.
const SHAPES: [(usize, usize); 8] =
    [(2048, 2048), (320, 320), (896, 320), (320, 896), (896, 896), (4864, 896), (896, 4864), (65_536, 896)];

/// One tier's measurements.
struct Bench<'a> {
    compute: &'a Compute,
    filter: &'a str,
    out: io::StdoutLock<'static>,
}

impl Bench<'_> {
    /// Prints what one call of `run` reaches, if its name is wanted.
    fn measure(&mut self, what: &str, flops: usize, bytes: usize, mut run: impl FnMut()) -> io::Result<()> {
        if !what.contains(self.filter) {
            return Ok(());
        }
        let seconds = best_seconds(&mut run);
        let (tier, threads) = (self.compute.tier().name(), self.compute.threads());
        let (rate, bandwidth) = (flops as f64 / seconds / 1e9, bytes as f64 / seconds / 1e9);
        let micros = seconds * 1e6;
        writeln!(
            self.out,
            "{tier:<11} x{threads}  {what:<52} {rate:>8.1} GFLOP/s {bandwidth:>7.1} GB/s {micros:>10.2} µs"
        )
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = arguments.first().map_or(1, |text| text.parse().expect("THREADS is a number"));
    let tiers = match arguments.get(1) {
        Some(text) => vec![text.parse().expect("TIER is the name of a tier")],
        None => Tier::all_available(),
    };
    let filter = arguments.get(2).map_or("", String::as_str);
    for tier in tiers {
        let compute = Compute::new(tier, threads);
        let mut bench = Bench { compute: &compute, filter, out: io::stdout().lock() };
        products(&mut bench)?;
        attention(&mut bench)?;
        small_kernels(&mut bench)?;
    }
    Ok(())
}

fn products(bench: &mut Bench<'_>) -> io::Result<()> {
    let compute = bench.compute;
    for format in [WeightFormat::Bf16, WeightFormat::Int8] {
        for (n_out, n_in) in SHAPES {
            let weight: Vec<bf16> = numbers(n_out * n_in).into_iter().map(bf16::from_f32).collect();
            let w = Matrix::pack(compute, &weight, n_out, n_in, format);
            bench.measure(&format!("pack {format} ({n_out}, {n_in})"), 0, 2 * weight.len(), || {
                std::hint::black_box(Matrix::pack(compute, &weight, n_out, n_in, format));
            })?;
            bench.measure(&format!("pack_transposed ({n_out}, {n_in})"), 0, 2 * weight.len(), || {
                std::hint::black_box(Matrix::pack_transposed(compute, &weight, n_out, n_in));
            })?;
            for rows in [1, 16, 256] {
                let x = numbers(rows * n_in);
                let mut y = vec![0.0; rows * n_out];
                let what = format!("matmul {format} ({n_out}, {n_in}) {rows} rows");
                bench.measure(&what, 2 * rows * n_out * n_in, w.bytes(), || {
                    kernels::matmul(compute, &mut y, &x, &w, rows);
                })?;
            }
        }
    }
    Ok(())
}

fn attention(bench: &mut Bench<'_>) -> io::Result<()> {
    const HEAD_DIM: usize = 64;
    for (heads, kv_heads) in [(5, 1), (5, 5), (14, 2)] {
        for (rows, first, step) in [(1, 511, 0), (16, 511, 0), (256, 256, 1)] {
            serving_attention(bench, rows, first, step, (heads, kv_heads, HEAD_DIM))?;
        }
        training_attention(bench, (heads, kv_heads, HEAD_DIM))?;
    }
    Ok(())
}

fn serving_attention(
    bench: &mut Bench<'_>,
    rows: usize,
    first: u32,
    step: u32,
    (heads, kv_heads, head_dim): (usize, usize, usize),
) -> io::Result<()> {
    const BLOCK_TOKENS: usize = 16;
    let compute = bench.compute;
    let width = kv_heads * head_dim;
    let (k, v, q) = (numbers(1024 * width), numbers(1024 * width), numbers(rows * heads * head_dim));
    let table: Vec<u32> = (0..1024 / BLOCK_TOKENS as u32).collect();
    let cache = PagedCache { keys: &k, values: &v, block_tokens: BLOCK_TOKENS, width };
    let attention_rows: Vec<AttentionRow<'_>> =
        (0..rows as u32).map(|row| AttentionRow { block_table: &table, position: first + row * step }).collect();
    let mut y = vec![0.0; q.len()];
    let tokens: usize = attention_rows.iter().map(|row| row.position as usize + 1).sum();
    let what = format!("attention_paged {heads}/{kv_heads} heads, {rows} rows from {first}");
    bench.measure(&what, 4 * tokens * heads * head_dim, 8 * tokens * width, || {
        kernels::attention_paged(compute, &mut y, &q, cache, &attention_rows, heads, kv_heads, head_dim);
    })
}

fn training_attention(bench: &mut Bench<'_>, (heads, kv_heads, head_dim): (usize, usize, usize)) -> io::Result<()> {
    let compute = bench.compute;
    let (rows, width) = (1024, kv_heads * head_dim);
    let (q, k, v) = (numbers(rows * heads * head_dim), numbers(rows * width), numbers(rows * width));
    let (mut y, mut lse) = (vec![0.0; q.len()], vec![0.0; rows * heads]);
    let sequences = [0..512, 512..1024];
    let flops = 2 * 4 * (512 * 512 / 2) * heads * head_dim;
    let bytes = 8 * rows * (heads * head_dim + width);
    bench.measure(&format!("attention_causal {heads}/{kv_heads} heads, 2 × 512"), flops, bytes, || {
        kernels::attention_causal(compute, &mut y, &mut lse, &q, &k, &v, &sequences, heads, kv_heads, head_dim);
    })?;
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]);
    let what = format!("attention_causal_backward {heads}/{kv_heads} heads, 2 × 512");
    bench.measure(&what, flops * 5 / 2, 2 * bytes, || {
        kernels::attention_causal_backward(
            compute, &mut dq, &mut dk, &mut dv, &y, &q, &k, &v, &y, &lse, &sequences, heads, kv_heads, head_dim,
        );
    })
}

fn small_kernels(bench: &mut Bench<'_>) -> io::Result<()> {
    let compute = bench.compute;
    let (n_in, n_out, rank) = (896, 896, 16);
    for rows in [1, 16, 256] {
        let (x, a, b_t) = (numbers(rows * n_in), numbers(rank * n_in), numbers(rank * n_out));
        let (mut y, mut h) = (numbers(rows * n_out), vec![0.0; rows * rank]);
        let (flops, bytes) = (2 * rows * rank * (n_in + n_out), 4 * rank * (n_in + n_out));
        bench.measure(&format!("lora_add rank 16, {rows} rows"), flops, bytes, || {
            let matrices = LoraMatrices::F32 { a: &a, b_t: &b_t };
            let product = LoraProduct { rows: 0..rows, matrices, scale: 0.0, rank };
            kernels::lora_add(compute, &mut y, &mut h, &x, &[product], n_in, n_out);
        })?;
        let (weight, up, len) = (numbers(n_in), numbers(rows * n_in), rows * n_in);
        bench.measure(&format!("rms_norm {rows} × 896"), 4 * len, 8 * len, || {
            kernels::rms_norm(compute, &mut y, &x, &weight, 1e-5, rows, n_in);
        })?;
        bench.measure(&format!("silu_mul {rows} × 896"), 4 * len, 12 * len, || {
            kernels::silu_mul(compute, &mut y, &x, &up, len);
        })?;
    }
    let (rows, vocab) = (64, 32_000);
    let (mut logits, mut losses, targets) = (numbers(rows * vocab), vec![0.0; rows], vec![7; rows]);
    bench.measure("cross_entropy_backward 64 × 32000", 8 * rows * vocab, 8 * rows * vocab, || {
        kernels::cross_entropy_backward(compute, &mut logits, &mut losses, &targets, 1.0, rows, vocab);
    })?;
    let (rows, rank, n) = (2048, 16, 896);
    let (x, w, mut y) = (numbers(rows * rank), numbers(rows * n), vec![0.0; rank * n]);
    bench.measure("gemm_tn 16 × 896 over 2048", 2 * rows * rank * n, 4 * rows * n, || {
        let (x, w) = (Mat::new(&x, rows, rank), Mat::new(&w, rows, n));
        kernels::par_gemm_tn(compute, MatMut::new(&mut y, rank, n), x, w, 1.0, false);
    })
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1021) as f32 / 1021.0 - 0.5).collect()
}

/// The best of many short measurements: on a machine that others use as well, most are disturbed.
fn best_seconds(run: &mut impl FnMut()) -> f64 {
    run();
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    let mut runs = 1;
    while begin.elapsed() < MEASUREMENT {
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        let elapsed = start.elapsed();
        best = best.min(elapsed.as_secs_f64() / f64::from(runs));
        if elapsed < SAMPLE_MIN {
            runs *= 2;
        }
    }
    best
}
