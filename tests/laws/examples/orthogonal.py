"""Muon and GaLore: rules of matrices, on a tree with a vector and a scalar too."""

from typing import Any

import jax
import optax

import gradtx
from gradtx import torch as gt

from .example import E, Example, linear

# Two iterations, because the laws try coefficients with which five leave float32.
# A vector is a matrix of one row, a scalar one of one row and one column.
ROWS_AND_COLUMNS = (((), ()), ((), 0), (0, 1))


def as_matrices(params: Any) -> Any:
    """Dimension numbers of all arrays."""
    return jax.tree.map(
        lambda x: gradtx.MuonDimensionNumbers(*ROWS_AND_COLUMNS[min(x.ndim, 2)]), params
    )


EXAMPLES: tuple[Example, ...] = (
    E(
        "scale_by_muon",
        "of all arrays",
        lambda: gradtx.scale_by_muon(ns_steps=2, weight_dimension_numbers=as_matrices),
        written_out=False,
        idle=("eps",),
    ),
    E(
        "scale_by_muon",
        "adaptive with AOL",
        lambda: gradtx.scale_by_muon(
            gradtx.transforms.orthogonal.DION[:2],
            eps=1e-3,
            nesterov=False,
            adaptive=True,
            preconditioning="aol",
            weight_dimension_numbers=as_matrices,
        ),
        written_out=False,
        idle=("eps",),
    ),
    E(
        "scale_by_muon",
        "Schatten bf16",
        lambda: gradtx.scale_by_muon(
            ns_steps=2,
            mu_dtype="bfloat16",
            preconditioning="schatten",
            weight_dimension_numbers=as_matrices,
        ),
        narrow=True,
        written_out=False,
        idle=("eps",),
    ),
    E(
        "scale_by_muon",
        "spectral",
        lambda: gradtx.scale_by_muon(
            preconditioning="spectral", weight_dimension_numbers=as_matrices, ns_steps=2
        ),
        written_out=False,
        idle=("eps",),
    ),
    E(
        "muon",
        "nearly default",
        lambda: gradtx.muon(0.1, ns_steps=2),
        needs_params=True,
        rates=(0.05, 0.03),
        twin=lambda: optax.contrib.muon(0.1, ns_steps=2),
        idle=("eps",),
    ),
    E(
        "muon",
        "with its options",
        lambda: gradtx.muon(
            linear(),
            ns_steps=2,
            weight_decay=0.1,
            weight_decay_mask="^w",
            nesterov=False,
            adaptive=True,
            adam_learning_rate=0.1,
            consistent_rms=0.2,
        ),
        needs_params=True,
        by_path=True,
        idle=("eps",),
    ),
    E(
        "scale_by_galore",
        "of rank one",
        lambda: gradtx.scale_by_galore(1, 2),
        twin=lambda: optax.contrib.scale_by_galore(1, 2),
        written_out=False,
    ),
    E(
        "scale_by_galore",
        "with momentum",
        lambda: gradtx.scale_by_galore(1, scale=0.5, base_optimizer=gradtx.trace(0.9)),
        twin=lambda: optax.contrib.scale_by_galore(1, scale=0.5, base_optimizer=optax.trace(0.9)),
        written_out=False,
    ),
    E(
        "galore",
        "default",
        lambda: gradtx.galore(0.1),
        needs_params=True,
        rates=(0.1, 0.03),
        twin=lambda: optax.contrib.galore(0.1),
    ),
    E(
        "scale_by_soap",
        "bases of every step",
        lambda: gradtx.scale_by_soap(precondition_frequency=1, precondition_1d=True),
    ),
    E(
        "scale_by_soap",
        "merged and normalized",
        lambda: gradtx.scale_by_soap(
            0.9,
            0.99,
            0.8,
            precondition_frequency=1,
            max_precond_dim=3,
            merge_dims=True,
            normalize_grads=True,
        ),
    ),
    E(
        "soap",
        "default",
        lambda: gradtx.soap(0.1, precondition_frequency=2),
        needs_params=True,
        rates=(0.1, 0.03),
    ),
    E(
        "scale_by_shampoo",
        "sums in blocks",
        lambda: gradtx.scale_by_shampoo(
            0.5,
            1.0,
            0.8,
            grafting=None,
            exponent=0.25,
            max_preconditioner_dim=2,
            merge_small_dims=False,
            eps=0.01,
        ),
        idle=("grafting_b2", "grafting_eps"),
    ),
    E(
        "scale_by_shampoo",
        "whitened",
        lambda: gradtx.scale_by_shampoo(
            eps=0.1,
            start_preconditioning_step=2,
            grafting="rmsprop",
            max_preconditioner_dim=8,
            kl=True,
        ),
    ),
    E(
        "shampoo",
        "default",
        lambda: gradtx.shampoo(0.1, eps=0.1, max_preconditioner_dim=8, merge_small_dims=False),
        needs_params=True,
        rates=(0.1, 0.03),
    ),
    E(
        "scale_by_kron",
        "fitted to noise",
        lambda: gradtx.scale_by_kron(
            0.5, preconditioner_update_probability=0.5, memory_save_mode="one_diag", seed=3
        ),
        noisy=True,
    ),
    E(
        "scale_by_kron",
        "procrustes",
        lambda: gradtx.scale_by_kron(
            method="procrustes",
            preconditioner_update_probability=1.0,
            momentum_into_precond_update=False,
        ),
    ),
    E(
        "kron",
        "default",
        lambda: gradtx.kron(0.1),
        needs_params=True,
        rates=(0.02, 0.02),
        noisy=True,
        couples=True,  # by the paths of leaves, which the random numbers depend on
        by_path=True,
        idle=("preconditioner_update_probability",),
    ),
    E(
        "torch.muon",
        "beside sgd",
        lambda: gradtx.partition(
            {"^w": gt.muon(0.1, ns_steps=2, ns_dtype="float32"), ".*": gradtx.sgd(0.1)}
        ),
        needs_params=True,
        real=True,
        by_path=True,
        written_out=False,
        idle=("transforms",),
    ),
)
