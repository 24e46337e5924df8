//! Prints arithmetic and memory throughput of the products, per tier, format and number of rows.
//!
//! `cargo run -p atelier-kernels --example throughput [-- threads]`

use std::io::{self, Write};
use std::time::{Duration, Instant};

use atelier_kernels::{Compute, Matrix, Tier, WeightFormat, matmul};
use half::bf16;

/// Each figure is the best of several measurements of at least this long.
const MEASUREMENT: Duration = Duration::from_millis(60);
const MEASUREMENTS: usize = 3;

fn main() -> io::Result<()> {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut out = io::stdout().lock();
    writeln!(out, "{:<12} {:<5} {:>4} {:>5} {:>5} {:>9} {:>8} {:>10}", "tier", "fmt", "rows", "n_out", "n_in", "GFLOP/s", "GB/s", "µs")?;
    for tier in Tier::all_available() {
        let compute = Compute::new(tier, threads);
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            for (n_out, n_in) in [(2048, 2048), (320, 320), (896, 320), (320, 896), (896, 896), (4864, 896), (896, 4864)] {
                let weight: Vec<bf16> = (0..n_out * n_in).map(|i| bf16::from_f32((i % 251) as f32 / 251.0 - 0.5)).collect();
                let w = Matrix::pack(&compute, &weight, n_out, n_in, format);
                for rows in [1, 16, 256] {
                    let x: Vec<f32> = (0..rows * n_in).map(|i| (i % 127) as f32 / 127.0 - 0.5).collect();
                    let mut y = vec![0.0; rows * n_out];
                    let seconds = best_seconds(|| matmul(&compute, &mut y, &x, &w, rows));
                    let flops = 2.0 * (rows * n_out * n_in) as f64;
                    writeln!(
                        out,
                        "{:<12} {:<5} {rows:>4} {n_out:>5} {n_in:>5} {:>9.1} {:>8.1} {:>10.2}",
                        tier.name(),
                        format.to_string(),
                        flops / seconds / 1e9,
                        w.bytes() as f64 / seconds / 1e9,
                        seconds * 1e6
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn best_seconds(mut run: impl FnMut()) -> f64 {
    run();
    let mut best = f64::INFINITY;
    for _ in 0..MEASUREMENTS {
        let start = Instant::now();
        let mut runs = 0;
        while start.elapsed() < MEASUREMENT {
            run();
            runs += 1;
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(runs));
    }
    best
}
