"""Noise, and complex arrays as pairs."""

import optax

import gradtx

from .example import E, Example, linear

EXAMPLES: tuple[Example, ...] = (
    E(
        "add_noise",
        "default",
        lambda: gradtx.add_noise(0.01, 0.55),
        couples=True,
        noisy=True,
        by_path=True,
    ),
    E(
        "add_noise",
        "falling from a seed",
        lambda: gradtx.add_noise(linear(), 1.0, 7),
        couples=True,
        noisy=True,
        by_path=True,
    ),
    E(
        "noisy_sgd",
        "default",
        lambda: gradtx.noisy_sgd(0.1),
        couples=True,
        noisy=True,
        by_path=True,
        rates=(0.02, 1e-3),
    ),
    E(
        "split_real_and_imaginary",
        "adam",
        lambda: gradtx.split_real_and_imaginary(gradtx.adam(0.1)),
        twin=lambda: optax.contrib.split_real_and_imaginary(optax.adam(0.1)),
        written_out=False,
    ),
)
