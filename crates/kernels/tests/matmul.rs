//! Products with frozen weights: right, the same for any number of rows, the same for any number of threads.

use atelier_kernels::{Compute, INT8_GROUP, Matrix, Tier, WeightFormat, matmul, naive};
use half::bf16;
use proptest::prelude::*;

const SHAPES: [(usize, usize); 12] = [
    (1, 1),
    (3, 2),
    (15, 64),
    (16, 16),
    (17, 63),
    (33, 65),
    (64, 128),
    (65, 129),
    (100, 300),
    (130, 257),
    (320, 320),
    (200, 640),
];
const ROWS: [usize; 9] = [1, 2, 3, 5, 6, 7, 12, 13, 50];
/// Rounding of x to bf16 costs half of 2^-8 a product; f32 sums cost less than a hundredth of that here.
const ERROR_BF16: f32 = 1.0 / 256.0;
const ERROR_F32: f32 = 1e-5;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let mut state = (seed as u32).wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn weights(n_out: usize, n_in: usize) -> Vec<bf16> {
    numbers(n_out * n_in, n_out + 3 * n_in).into_iter().map(bf16::from_f32).collect()
}

fn computes() -> Vec<Compute> {
    Tier::all_available().into_iter().flat_map(|tier| [1, 3].map(|threads| Compute::new(tier, threads))).collect()
}

fn product(compute: &Compute, x: &[f32], w: &Matrix, rows: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * w.n_out()];
    matmul(compute, &mut y, x, w, rows);
    y
}

/// The norms of the rows of x and of w bound what rounding can do to their product.
fn norm(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[test]
fn agrees_with_the_naive_product() {
    for (n_out, n_in) in SHAPES {
        let weight = weights(n_out, n_in);
        for compute in computes() {
            for format in [WeightFormat::Bf16, WeightFormat::Int8] {
                let w = Matrix::pack(&compute, &weight, n_out, n_in, format);
                let error = match (format, compute.tier()) {
                    // Half a code of 127 at a product, of the group's largest element.
                    (WeightFormat::Int8, _) => 3.0 * 0.5 / 127.0,
                    (_, Tier::Avx512Bf16) => ERROR_BF16,
                    _ => ERROR_F32,
                };
                for rows in ROWS {
                    let x = numbers(rows * n_in, 7);
                    let got = product(&compute, &x, &w, rows);
                    let mut expected = vec![0.0; rows * n_out];
                    naive::matmul(&mut expected, &x, &w, rows);
                    let mut w_row = vec![0.0; n_in];
                    for column in 0..n_out {
                        w.row(&compute, &mut w_row, column);
                        for row in 0..rows {
                            let bound = error * norm(&w_row) * norm(&x[row * n_in..][..n_in]) + 1e-6;
                            let (got, expected) = (got[row * n_out + column], expected[row * n_out + column]);
                            assert!(
                                (got - expected).abs() <= bound,
                                "{} {format} ({n_out}, {n_in}) row {row} of {rows} column {column}: {got} {expected}",
                                compute.tier()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_whatever_shares_the_call() {
    for (n_out, n_in) in SHAPES {
        let weight = weights(n_out, n_in);
        let rows = 53;
        let x = numbers(rows * n_in, 11);
        for tier in Tier::all_available() {
            for format in [WeightFormat::Bf16, WeightFormat::Int8] {
                let compute = Compute::new(tier, 1);
                let w = Matrix::pack(&compute, &weight, n_out, n_in, format);
                let alone: Vec<f32> = x.chunks(n_in).flat_map(|x| product(&compute, x, &w, 1)).collect();
                for threads in [1, 2, 5] {
                    let compute = Compute::new(tier, threads);
                    for rows in ROWS.into_iter().chain([rows]) {
                        let together = product(&compute, &x[..rows * n_in], &w, rows);
                        let same = together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{tier} {format} ({n_out}, {n_in}) {rows} rows {threads} threads");
                    }
                }
            }
        }
    }
}

#[test]
fn big_products_are_cut_into_blocks_without_a_trace() {
    let (n_out, n_in, rows) = (1000, 1500, 200);
    let weight = weights(n_out, n_in);
    let x = numbers(rows * n_in, 13);
    for tier in Tier::all_available().into_iter().filter(|&tier| tier != Tier::Portable) {
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            let compute = Compute::new(tier, 2);
            let w = Matrix::pack(&compute, &weight, n_out, n_in, format);
            let together = product(&compute, &x, &w, rows);
            for row in [0, 1, 47, 48, 101, 150, 199] {
                let alone = product(&compute, &x[row * n_in..][..n_in], &w, 1);
                assert_eq!(together[row * n_out..][..n_out], alone, "{tier} {format} row {row}");
            }
        }
    }
}

/// The definition of the int8 product, in plain integers.
fn int8_by_definition(x: &[f32], weight: &[bf16], n_out: usize, n_in: usize) -> Vec<f32> {
    let codes = |group: &[f32]| {
        let max = group.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        (max / 127.0, group.iter().map(|x| (x * (127.0 / max)).round_ties_even() as i32).collect::<Vec<_>>())
    };
    let mut y = Vec::new();
    for x in x.chunks(n_in) {
        for w in weight.chunks(n_in).take(n_out) {
            let w: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
            let groups = x.chunks(INT8_GROUP).zip(w.chunks(INT8_GROUP));
            let sum: f64 = groups
                .map(|(x, w)| {
                    let ((x_scale, x), (w_scale, _)) = (codes(x), codes(w));
                    let w = w.iter().map(|w| (w / w_scale).round_ties_even() as i32);
                    let dot: i32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    f64::from(dot) * f64::from(x_scale) * f64::from(w_scale)
                })
                .sum();
            y.push(sum as f32);
        }
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn int8_follows_its_definition(n_out in 1_usize..70, n_in in 1_usize..200, rows in 1_usize..9, seed in 0_usize..1000) {
        let weight = weights(n_out, n_in);
        let x = numbers(rows * n_in, seed);
        let expected = int8_by_definition(&x, &weight, n_out, n_in);
        for compute in computes() {
            let w = Matrix::pack(&compute, &weight, n_out, n_in, WeightFormat::Int8);
            for (got, expected) in product(&compute, &x, &w, rows).iter().zip(&expected) {
                prop_assert!((got - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{}: {got} {expected}", compute.tier());
            }
        }
    }
}

#[test]
fn zero_rows_and_zero_groups_are_zero() {
    let (n_out, n_in) = (40, 130);
    let weight = weights(n_out, n_in);
    let mut x = vec![0.0; 2 * n_in];
    x[n_in + 70] = 2.0; // a single element in the second row's second group
    for compute in computes() {
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            let w = Matrix::pack(&compute, &weight, n_out, n_in, format);
            let y = product(&compute, &x, &w, 2);
            assert_eq!(y[..n_out], vec![0.0; n_out]);
            for column in 0..n_out {
                let expected = 2.0 * weight[column * n_in + 70].to_f32();
                assert!((y[n_out + column] - expected).abs() <= 0.01, "{} {format}", compute.tier());
            }
            assert!(product(&compute, &[], &w, 0).is_empty());
        }
    }
}
