//! Every other kernel against its naive twin: odd sizes, every tier, one and several threads.

use std::ops::Range;

use atelier_kernels as kernels;
use atelier_kernels::{
    AdamW, AttentionRow, Compute, LoraMatrices, LoraProduct, Mat, MatMut, PagedCache, RopeTable, Tier, naive,
};

/// Against f64: a few roundings of f32, each 6e-8, of sums of up to a few hundred terms of size one.
const ERROR: f32 = 1e-5;
const LENGTHS: [usize; 14] = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257, 20_000];

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn for_each_compute(run: impl Fn(&Compute)) {
    for tier in Tier::all_available() {
        for threads in [1, 3] {
            run(&Compute::new(tier, threads));
        }
    }
}

fn check(what: &str, compute: &Compute, got: &[f32], expected: &[f32], error: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let bound = error * (1.0 + expected.abs());
        assert!(
            (got - expected).abs() <= bound,
            "{what}, {} with {} threads, at {i}: {got} is not {expected}",
            compute.tier(),
            compute.threads()
        );
    }
}

#[test]
fn element_wise() {
    for_each_compute(|compute| {
        for len in LENGTHS {
            let (gate, up, dy) = (numbers(len, 1), numbers(len, 2), numbers(len, 3));
            let gate: Vec<f32> = gate.iter().map(|x| 20.0 * x).collect();
            let (mut y, mut expected) = (vec![f32::NAN; len], vec![0.0; len]);
            kernels::silu_mul(compute, &mut y, &gate, &up, len);
            naive::silu_mul(&mut expected, &gate, &up, len);
            check("silu_mul", compute, &y, &expected, ERROR);
            let (mut dup, mut expected_dup) = (vec![f32::NAN; len], vec![0.0; len]);
            kernels::silu_mul_backward(compute, &mut y, &mut dup, &dy, &gate, &up, len);
            naive::silu_mul_backward(&mut expected, &mut expected_dup, &dy, &gate, &up, len);
            check("silu_mul_backward dgate", compute, &y, &expected, ERROR);
            check("silu_mul_backward dup", compute, &dup, &expected_dup, ERROR);
            kernels::add(compute, &mut y, &up, len);
            naive::add(&mut expected, &up, len);
            check("add", compute, &y, &expected, ERROR);
        }
    });
}

#[test]
fn silu_of_extremes_is_finite() {
    for_each_compute(|compute| {
        let gate = [-1e4, -100.0, -88.0, 0.0, 88.0, 100.0, 1e4];
        let (mut y, mut expected) = ([f32::NAN; 7], [0.0; 7]);
        kernels::silu_mul(compute, &mut y, &gate, &[1.0; 7], 7);
        naive::silu_mul(&mut expected, &gate, &[1.0; 7], 7);
        check("silu_mul", compute, &y, &expected, ERROR);
    });
}

#[test]
fn adamw_steps() {
    for_each_compute(|compute| {
        for len in LENGTHS {
            let start = [numbers(len, 1), vec![0.0; len], vec![0.0; len]];
            let ([mut p, mut m, mut v], [mut p2, mut m2, mut v2]) = (start.clone(), start);
            for step in 1..=3 {
                let options = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step };
                let grad = numbers(len, 10 + step as u32);
                kernels::adamw(compute, &mut p, &mut m, &mut v, &grad, &options);
                naive::adamw(&mut p2, &mut m2, &mut v2, &grad, &options);
            }
            check("param", compute, &p, &p2, ERROR);
            check("m", compute, &m, &m2, ERROR);
            check("v", compute, &v, &v2, ERROR);
        }
    });
}

#[test]
fn norms_and_bias() {
    for_each_compute(|compute| {
        for (rows, dim) in [(1, 1), (3, 7), (5, 16), (2, 33), (7, 64), (4, 320), (33, 100), (300, 65)] {
            let (x, dy, weight) = (numbers(rows * dim, 1), numbers(rows * dim, 2), numbers(dim, 3));
            let (mut y, mut expected) = (vec![f32::NAN; rows * dim], vec![0.0; rows * dim]);
            kernels::rms_norm(compute, &mut y, &x, &weight, 1e-5, rows, dim);
            naive::rms_norm(&mut expected, &x, &weight, 1e-5, rows, dim);
            check("rms_norm", compute, &y, &expected, ERROR);
            let mut alone = vec![0.0; dim];
            for row in 0..rows {
                kernels::rms_norm(compute, &mut alone, &x[row * dim..][..dim], &weight, 1e-5, 1, dim);
                assert_eq!(alone, y[row * dim..][..dim], "row {row} of {rows} alone");
            }
            kernels::rms_norm_backward(compute, &mut y, &dy, &x, &weight, 1e-5, rows, dim);
            naive::rms_norm_backward(&mut expected, &dy, &x, &weight, 1e-5, rows, dim);
            check("rms_norm_backward", compute, &y, &expected, ERROR);
            kernels::add_bias(compute, &mut y, &weight, rows, dim);
            naive::add_bias(&mut expected, &weight, rows, dim);
            check("add_bias", compute, &y, &expected, ERROR);
        }
    });
}

#[test]
fn rotations() {
    for_each_compute(|compute| {
        for (rows, heads, head_dim) in [(1, 1, 2), (3, 2, 6), (5, 3, 16), (2, 5, 34), (40, 4, 64), (9, 2, 128)] {
            let table = RopeTable::new(head_dim, 10_000.0, 300);
            let positions: Vec<u32> = (0..rows as u32).map(|i| i * 37 % 300).collect();
            let start = numbers(rows * heads * head_dim, 1);
            let (mut x, mut expected) = (start.clone(), start.clone());
            kernels::rope(compute, &mut x, &positions, &table, rows, heads);
            naive::rope(&mut expected, &positions, &table, rows, heads);
            check("rope", compute, &x, &expected, ERROR);
            kernels::rope_backward(compute, &mut x, &positions, &table, rows, heads);
            check("rope there and back", compute, &x, &start, ERROR);
        }
    });
}

#[test]
fn reductions_of_a_row() {
    for_each_compute(|compute| {
        for len in LENGTHS {
            let mut row: Vec<f32> = numbers(len, 5).iter().map(|x| 30.0 * x).collect();
            let mut expected = row.clone();
            let total = kernels::log_sum_exp(compute.tier(), &row);
            check("log_sum_exp", compute, &[total], &[naive::log_sum_exp(&row)], ERROR);
            assert_eq!(kernels::argmax(&row), naive::argmax(&row));
            kernels::softmax(compute.tier(), &mut row);
            naive::softmax(&mut expected);
            check("softmax", compute, &row, &expected, ERROR);
        }
        assert_eq!(kernels::log_sum_exp(compute.tier(), &[]), f32::NEG_INFINITY);
        let mut masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
        assert!((kernels::log_sum_exp(compute.tier(), &masked) - (1.0 + 2.0_f32.ln())).abs() < ERROR);
        kernels::softmax(compute.tier(), &mut masked);
        assert_eq!(masked, [0.0, 0.5, 0.0, 0.5]);
    });
}

#[test]
fn argmax_takes_the_lowest_of_equals() {
    let check = |row: &[f32], expected: usize| assert_eq!(kernels::argmax(row), expected, "{row:?}");
    check(&[], 0);
    check(&[1.0], 0);
    check(&[1.0, 3.0, 3.0, 2.0], 1);
    let mut long = vec![0.0; 200];
    for i in [70, 130, 199] {
        long[i] = 5.0;
    }
    check(&long, 70);
}

#[test]
fn cross_entropy_forward_and_backward() {
    for_each_compute(|compute| {
        for (rows, vocab) in [(1, 1), (3, 5), (7, 33), (20, 1000), (4, 4099)] {
            let logits: Vec<f32> = numbers(rows * vocab, 1).iter().map(|x| 12.0 * x).collect();
            let targets: Vec<i32> =
                (0..rows).map(|row| if row % 3 == 1 { -1 } else { (row * 31 % vocab) as i32 }).collect();
            let (mut losses, mut expected_losses) = (vec![f32::NAN; rows], vec![0.0; rows]);
            kernels::cross_entropy(compute, &mut losses, &logits, &targets, rows, vocab);
            naive::cross_entropy(&mut expected_losses, &logits, &targets, rows, vocab);
            check("cross_entropy", compute, &losses, &expected_losses, ERROR);
            let (mut dlogits, mut expected) = (logits.clone(), logits);
            losses.fill(f32::NAN);
            kernels::cross_entropy_backward(compute, &mut dlogits, &mut losses, &targets, 0.25, rows, vocab);
            naive::cross_entropy_backward(&mut expected, &mut expected_losses, &targets, 0.25, rows, vocab);
            check("cross_entropy_backward losses", compute, &losses, &expected_losses, ERROR);
            check("cross_entropy_backward", compute, &dlogits, &expected, ERROR);
        }
    });
}

type Gemm = fn(Tier, MatMut<'_>, Mat<'_>, Mat<'_>, f32, bool);
type ParGemm = fn(&Compute, MatMut<'_>, Mat<'_>, Mat<'_>, f32, bool);
type NaiveGemm = fn(MatMut<'_>, Mat<'_>, Mat<'_>, f32, bool);

/// A matrix with `gap` unused elements after each row.
fn matrix(data: &[f32], rows: usize, cols: usize, gap: usize) -> Mat<'_> {
    Mat { data, rows, cols, stride: cols + gap }
}

#[test]
fn small_products() {
    let cases: [(&str, Gemm, ParGemm, NaiveGemm); 3] = [
        ("gemm_nt", kernels::gemm_nt, kernels::par_gemm_nt, naive::gemm_nt),
        ("gemm_nn", kernels::gemm_nn, kernels::par_gemm_nn, naive::gemm_nn),
        ("gemm_tn", kernels::gemm_tn, kernels::par_gemm_tn, naive::gemm_tn),
    ];
    let shapes =
        [(1, 1, 1), (2, 3, 4), (5, 17, 9), (6, 64, 33), (7, 65, 64), (13, 100, 31), (64, 70, 130), (130, 250, 40)];
    for_each_compute(|compute| {
        for (name, gemm, par_gemm, naive_gemm) in cases {
            for (m, n, k) in shapes {
                for (gap, alpha, accumulate) in [(0, 1.0, false), (3, 0.5, true)] {
                    let (x_shape, w_shape) = match name {
                        "gemm_nt" => ((m, k), (n, k)),
                        "gemm_nn" => ((m, k), (k, n)),
                        _ => ((k, m), (k, n)),
                    };
                    let x = numbers(x_shape.0 * (x_shape.1 + gap), 1);
                    let w = numbers(w_shape.0 * (w_shape.1 + gap), 2);
                    let x = matrix(&x, x_shape.0, x_shape.1, gap);
                    let w = matrix(&w, w_shape.0, w_shape.1, gap);
                    let start = numbers(m * (n + gap), 3);
                    let (mut y, mut y_parallel, mut expected) = (start.clone(), start.clone(), start);
                    let mut_of = |data| MatMut { data, rows: m, cols: n, stride: n + gap };
                    gemm(compute.tier(), mut_of(&mut y), x, w, alpha, accumulate);
                    par_gemm(compute, mut_of(&mut y_parallel), x, w, alpha, accumulate);
                    naive_gemm(mut_of(&mut expected), x, w, alpha, accumulate);
                    check(name, compute, &y, &expected, ERROR);
                    assert_eq!(y, y_parallel, "{name} on one thread and on several");
                }
            }
        }
    });
}

#[test]
fn rows_of_small_products_do_not_depend_on_each_other() {
    let (m, n, k) = (29, 75, 83);
    let (x, w_nt, w_nn) = (numbers(m * k, 1), numbers(n * k, 2), numbers(k * n, 3));
    for tier in Tier::all_available() {
        let (mut nt, mut nn, mut alone) = (vec![0.0; m * n], vec![0.0; m * n], vec![0.0; n]);
        kernels::gemm_nt(tier, MatMut::new(&mut nt, m, n), Mat::new(&x, m, k), Mat::new(&w_nt, n, k), 1.0, false);
        kernels::gemm_nn(tier, MatMut::new(&mut nn, m, n), Mat::new(&x, m, k), Mat::new(&w_nn, k, n), 1.0, false);
        for row in 0..m {
            let x = Mat::new(&x[row * k..][..k], 1, k);
            kernels::gemm_nt(tier, MatMut::new(&mut alone, 1, n), x, Mat::new(&w_nt, n, k), 1.0, false);
            assert_eq!(alone, nt[row * n..][..n], "{tier} nt row {row}");
            kernels::gemm_nn(tier, MatMut::new(&mut alone, 1, n), x, Mat::new(&w_nn, k, n), 1.0, false);
            assert_eq!(alone, nn[row * n..][..n], "{tier} nn row {row}");
        }
    }
}

#[test]
fn lora() {
    // Rows of each group, and the ranks of its adapters: one large group, many small ones, two adapters on a row, rows
    // that no adapter is for.
    let cases: [&[(std::ops::Range<usize>, &[usize])]; 5] = [
        &[(0..1, &[1])],
        &[(0..3, &[4, 2]), (5..6, &[16])],
        &[(0..1, &[16]), (1..2, &[8, 16]), (2..3, &[3]), (3..4, &[16]), (4..70, &[16, 4]), (71..72, &[9])],
        &[(1..70, &[9])],
        &[],
    ];
    for_each_compute(|compute| {
        for groups in cases {
            for (n_in, n_out) in [(1, 1), (33, 17), (320, 896), (129, 65)] {
                let rows = groups.last().map_or(2, |(rows, _)| rows.end + 1);
                let rank_max = groups.iter().flat_map(|(_, ranks)| *ranks).copied().max().unwrap_or(0);
                let pairs: Vec<_> = groups
                    .iter()
                    .flat_map(|(rows, ranks)| ranks.iter().map(move |rank| (rows.clone(), *rank)))
                    .enumerate()
                    .map(|(at, (rows, rank))| {
                        (rows, rank, numbers(rank * n_in, 7 + at as u32), numbers(rank * n_out, 90 + at as u32))
                    })
                    .collect();
                let coded: Vec<_> = pairs
                    .iter()
                    .map(|(_, rank, a, b_t)| {
                        (codes(a), codes(b_t), numbers(*rank, 5).iter().map(|step| 1e-4 * step).collect::<Vec<_>>())
                    })
                    .collect();
                let in_f32 = pairs.iter().map(|(rows, rank, a, b_t)| (rows, *rank, LoraMatrices::F32 { a, b_t }));
                let in_int8 = pairs
                    .iter()
                    .zip(&coded)
                    .map(|((rows, rank, ..), (a, b_t, steps))| (rows, *rank, LoraMatrices::Int8 { a, b_t, steps }));
                let product = |(rows, rank, matrices): (&Range<usize>, usize, _)| LoraProduct {
                    rows: rows.clone(),
                    matrices,
                    scale: 0.5,
                    rank,
                };
                check_lora(compute, &in_f32.map(product).collect::<Vec<_>>(), rows, rank_max, n_in, n_out);
                check_lora(compute, &in_int8.map(product).collect::<Vec<_>>(), rows, rank_max, n_in, n_out);
            }
        }
    });
}

fn codes(values: &[f32]) -> Vec<i8> {
    values.iter().map(|value| (127.0 * value) as i8).collect()
}

/// Against the twin, and each row as it is alone.
fn check_lora(
    compute: &Compute,
    products: &[LoraProduct<'_>],
    rows: usize,
    rank_max: usize,
    n_in: usize,
    n_out: usize,
) {
    let (x, start) = (numbers(rows * n_in, 1), numbers(rows * n_out, 4));
    let (mut y, mut expected) = (start.clone(), start.clone());
    let (mut h, mut expected_h) = (vec![f32::NAN; rows * rank_max], vec![0.0; rows * rank_max]);
    kernels::lora_add(compute, &mut y, &mut h, &x, products, n_in, n_out);
    naive::lora_add(&mut expected, &mut expected_h, &x, products, n_in, n_out);
    check("lora_add", compute, &y, &expected, ERROR);
    for row in 0..rows {
        let (mut alone, mut h) = (start[row * n_out..][..n_out].to_vec(), vec![0.0; rank_max]);
        let its = products.iter().filter(|product| product.rows.contains(&row));
        let its: Vec<_> = its.map(|product| LoraProduct { rows: 0..1, ..product.clone() }).collect();
        let x = &x[row * n_in..][..n_in];
        kernels::lora_add(compute, &mut alone, &mut h, x, &its, n_in, n_out);
        assert_eq!(alone, y[row * n_out..][..n_out], "row {row} of {rows} alone");
    }
}

#[test]
#[should_panic(expected = "after row 2")]
fn lora_refuses_rows_that_overlap() {
    let matrices = LoraMatrices::F32 { a: &[1.0], b_t: &[1.0] };
    let one = |rows| LoraProduct { rows, matrices, scale: 1.0, rank: 1 };
    let compute = Compute::new(Tier::Portable, 1);
    kernels::lora_add(&compute, &mut [0.0; 3], &mut [0.0; 3], &[1.0; 3], &[one(0..2), one(1..3)], 1, 1);
}

const HEADS: [(usize, usize, usize); 5] = [(1, 1, 2), (4, 2, 16), (3, 3, 10), (6, 2, 64), (7, 1, 20)];

#[test]
fn paged_attention() {
    let block_tokens = 16;
    let positions: [u32; 8] = [0, 1, 15, 16, 40, 100, 130, 47];
    let blocks = 9;
    for_each_compute(|compute| {
        for (heads, kv_heads, head_dim) in HEADS {
            let width = kv_heads * head_dim;
            // Two sequences whose blocks lie scattered; the second's lie otherwise than the first's.
            let size = 2 * blocks * block_tokens * width;
            let (keys, values) = (numbers(size, 1), numbers(size, 2));
            let tables: [Vec<u32>; 2] =
                [(0..blocks as u32).map(|b| b * 2).rev().collect(), (0..blocks as u32).map(|b| b * 2 + 1).collect()];
            let cache = PagedCache { keys: &keys, values: &values, block_tokens, width };
            let rows: Vec<AttentionRow<'_>> = positions
                .iter()
                .enumerate()
                .map(|(i, &position)| AttentionRow { block_table: &tables[i % 2], position })
                .collect();
            let q: Vec<f32> = numbers(rows.len() * heads * head_dim, 3).iter().map(|x| 4.0 * x).collect();
            let (mut out, mut expected) = (vec![f32::NAN; q.len()], vec![0.0; q.len()]);
            kernels::attention_paged(compute, &mut out, &q, cache, &rows, heads, kv_heads, head_dim);
            naive::attention_paged(&mut expected, &q, cache, &rows, heads, kv_heads, head_dim);
            check("attention_paged", compute, &out, &expected, ERROR);
            for (i, row) in rows.iter().enumerate() {
                let part = i * heads * head_dim..(i + 1) * heads * head_dim;
                let mut alone = vec![0.0; heads * head_dim];
                kernels::attention_paged(
                    compute,
                    &mut alone,
                    &q[part.clone()],
                    cache,
                    &[*row],
                    heads,
                    kv_heads,
                    head_dim,
                );
                assert_eq!(alone, out[part], "row {i} alone");
            }
        }
    });
}

#[test]
fn paged_attention_does_not_see_where_blocks_lie() {
    let (block_tokens, width, tokens) = (4, 32, 19);
    let (keys, values, q) = (numbers(20 * width, 1), numbers(20 * width, 2), numbers(64, 3));
    let straight: Vec<u32> = (0..5).collect();
    let shuffled = [3_u32, 0, 4, 1, 2];
    let shuffle = |from: &[f32]| {
        let mut to = vec![0.0; from.len()];
        for (block, &at) in from.chunks(block_tokens * width).zip(&shuffled) {
            to[at as usize * block_tokens * width..][..block_tokens * width].copy_from_slice(block);
        }
        to
    };
    let (moved_keys, moved_values) = (shuffle(&keys), shuffle(&values));
    for_each_compute(|compute| {
        let run = |keys: &[f32], values: &[f32], block_table: &[u32]| {
            let mut out = vec![0.0; 64];
            let cache = PagedCache { keys, values, block_tokens, width };
            let row = AttentionRow { block_table, position: tokens - 1 };
            kernels::attention_paged(compute, &mut out, &q, cache, &[row], 4, 2, 16);
            out
        };
        assert_eq!(run(&keys, &values, &straight), run(&moved_keys, &moved_values, &shuffled));
    });
}

fn sequences() -> Vec<Range<usize>> {
    vec![0..1, 1..38, 38..38, 41..170]
}

#[test]
fn causal_attention_forward_and_backward() {
    let rows = 172; // 38..41 and 170..172 are in no sequence
    for_each_compute(|compute| {
        for (heads, kv_heads, head_dim) in HEADS {
            let (q_len, kv_len) = (rows * heads * head_dim, rows * kv_heads * head_dim);
            let (q, k, v, dout) = (numbers(q_len, 1), numbers(kv_len, 2), numbers(kv_len, 3), numbers(q_len, 4));
            let q: Vec<f32> = q.iter().map(|x| 4.0 * x).collect();
            let (mut out, mut lse) = (vec![f32::NAN; q_len], vec![f32::NAN; rows * heads]);
            let (mut expected, mut expected_lse) = (out.clone(), lse.clone());
            let shape = (heads, kv_heads, head_dim);
            kernels::attention_causal(compute, &mut out, &mut lse, &q, &k, &v, &sequences(), shape.0, shape.1, shape.2);
            naive::attention_causal(
                &mut expected,
                &mut expected_lse,
                &q,
                &k,
                &v,
                &sequences(),
                shape.0,
                shape.1,
                shape.2,
            );
            check("attention_causal", compute, &out, &expected, ERROR);
            check("attention_causal lse", compute, &lse, &expected_lse, ERROR);
            let (mut dq, mut dk, mut dv) = (vec![f32::NAN; q_len], vec![f32::NAN; kv_len], vec![f32::NAN; kv_len]);
            let (mut dq2, mut dk2, mut dv2) = (dq.clone(), dk.clone(), dv.clone());
            kernels::attention_causal_backward(
                compute,
                &mut dq,
                &mut dk,
                &mut dv,
                &dout,
                &q,
                &k,
                &v,
                &out,
                &lse,
                &sequences(),
                heads,
                kv_heads,
                head_dim,
            );
            naive::attention_causal_backward(
                &mut dq2,
                &mut dk2,
                &mut dv2,
                &dout,
                &q,
                &k,
                &v,
                &out,
                &lse,
                &sequences(),
                heads,
                kv_heads,
                head_dim,
            );
            check("dq", compute, &dq, &dq2, 3.0 * ERROR);
            check("dk", compute, &dk, &dk2, 3.0 * ERROR);
            check("dv", compute, &dv, &dv2, 3.0 * ERROR);
        }
    });
}

#[test]
fn training_and_serving_attention_agree() {
    let (rows, heads, kv_heads, head_dim, block_tokens) = (90, 4, 2, 32, 16);
    let width = kv_heads * head_dim;
    let q = numbers(rows * heads * head_dim, 1);
    let (k, v) = (numbers(96 * width, 2), numbers(96 * width, 3));
    let table: Vec<u32> = (0..6).collect();
    let attention_rows: Vec<AttentionRow<'_>> =
        (0..rows as u32).map(|position| AttentionRow { block_table: &table, position }).collect();
    for_each_compute(|compute| {
        let (mut served, mut trained) = (vec![0.0; q.len()], vec![0.0; q.len()]);
        let mut lse = vec![0.0; rows * heads];
        let cache = PagedCache { keys: &k, values: &v, block_tokens, width };
        kernels::attention_paged(compute, &mut served, &q, cache, &attention_rows, heads, kv_heads, head_dim);
        let (k, v) = (&k[..rows * width], &v[..rows * width]);
        let whole = 0..rows;
        kernels::attention_causal(
            compute,
            &mut trained,
            &mut lse,
            &q,
            k,
            v,
            std::slice::from_ref(&whole),
            heads,
            kv_heads,
            head_dim,
        );
        check("attention", compute, &served, &trained, ERROR);
    });
}
