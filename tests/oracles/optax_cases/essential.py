"""What is tried every time: from SGD to AdamW."""

import jax
import jax.numpy as jnp

from .case import COSINE, LINEAR, MASK, Args, Both, args, matrices

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale": [args(0.5), args(-2.0), args(1e-4), args(3)],
    "scale_by_learning_rate": [
        args(0.5),
        args(0.5, flip_sign=False),
        args(COSINE),
        args(LINEAR, flip_sign=False),
    ],
    "scale_by_schedule": [args(COSINE), args(LINEAR)],
    "trace": [
        args(0.9),
        args(0.0),
        args(0.5, True),
        args(0.9, nesterov=True, accumulator_dtype="float32"),
        args(0.99, accumulator_dtype=jnp.float32),
    ],
    "ema": [
        args(0.9),
        args(0.0),
        args(0.99, False),
        args(0.5, debias=False),
        args(0.9, accumulator_dtype="float32"),
    ],
    "scale_by_rss": [args(), args(0.0), args(1.0, 1e-3), args(initial_accumulator_value=0, eps=1)],
    "scale_by_rms": [
        args(),
        args(0.5, 1e-3),
        args(0.99, 1e-8, 1.0),
        args(eps_in_sqrt=False),
        args(bias_correction=True),
        args(0.99, eps_in_sqrt=False, bias_correction=True),
    ],
    "scale_by_stddev": [
        args(),
        args(0.8, 1e-3),
        args(0.99, 1e-8, 1.0),
        args(eps_in_sqrt=False),
        args(eps=0.1, bias_correction=True),
    ],
    "scale_by_adam": [
        args(),
        args(0.0, 0.9),
        args(0.5, 0.99, 1e-3, 1e-6),
        args(nesterov=True),
        args(0.8, 0.95, nesterov=True, eps_root=1e-8),
        args(mu_dtype="float32"),
    ],
    "scale_by_amsgrad": [
        args(),
        args(0.5, 0.9),
        args(0.9, 0.99, 1e-3, 1e-6),
        args(bias_correction_mu=False, bias_correction_nu=False),
        args(0.9, 0.99, bias_correction_nu=False),
        args(0.9, 0.99, bias_correction_mu=False),
        args(mu_dtype="float32"),
    ],
    "add_decayed_weights": [
        args(),
        args(0.1),
        args(0.1, mask=MASK),
        args(0.1, matrices),
        args(LINEAR),
    ],
    "clip": [args(1.0), args(0.1), args(1e6), args(0.5)],
    "clip_by_global_norm": [args(1.0), args(0.01), args(1e6), args(5.0)],
    "identity": [args()],
    "set_to_zero": [args()],
    "chain": [
        args(Both("clip(1.0)", lambda lib: lib.clip(1.0))),
        args(
            Both("clip_by_global_norm(1.0)", lambda lib: lib.clip_by_global_norm(1.0)),
            Both("scale_by_adam()", lambda lib: lib.scale_by_adam()),
            Both("add_decayed_weights(0.1)", lambda lib: lib.add_decayed_weights(0.1)),
            Both("scale(-0.1)", lambda lib: lib.scale(-0.1)),
        ),
        args(
            Both("chain(trace, scale)", lambda lib: lib.chain(lib.trace(0.9), lib.scale(-0.1))),
            Both("identity()", lambda lib: lib.identity()),
        ),
    ],
    "named_chain": [
        args(
            ("first", Both("trace(0.9)", lambda lib: lib.trace(0.9))),
            ("second", Both("scale(-0.1)", lambda lib: lib.scale(-0.1))),
        ),
        args(("only", Both("adam(0.1)", lambda lib: lib.adam(0.1)))),
        args(
            ("clip", Both("clip(0.5)", lambda lib: lib.clip(0.5))),
            ("adam", Both("scale_by_adam()", lambda lib: lib.scale_by_adam())),
            ("rate", Both("cosine", lambda lib: lib.scale_by_learning_rate(COSINE.build(lib)))),
        ),
    ],
    "masked": [
        args(Both("trace(0.9)", lambda lib: lib.trace(0.9)), MASK),
        args(Both("adam(0.1)", lambda lib: lib.adam(0.1)), matrices),
        args(Both("scale(0.0)", lambda lib: lib.scale(0.0)), mask=MASK),
        args(Both("adam(0.1)", lambda lib: lib.adam(0.1)), True),
    ],
    "stateless": [
        args(lambda updates, params: jax.tree.map(lambda u, p: u + 0.1 * p, updates, params)),
        args(lambda updates, params: jax.tree.map(jnp.sign, updates)),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "sgd": [
        args(0.1),
        args(0.1, 0.9),
        args(0.1, momentum=0.0),
        args(0.01, momentum=0.99, nesterov=True),
        args(COSINE, 0.9),
        args(0.1, 0.9, accumulator_dtype="float32"),
    ],
    "adagrad": [args(0.1), args(0.1, 0.0), args(0.5, 1.0, 1e-3), args(COSINE, eps=1e-10)],
    "rmsprop": [
        args(0.01),
        args(0.01, 0.99, 1e-6, 0.1),
        args(0.01, eps_in_sqrt=False),
        args(0.01, centered=True),
        args(0.01, momentum=0.9),
        args(COSINE, momentum=0.9, nesterov=True),
        args(0.01, bias_correction=True),
        args(0.01, centered=True, momentum=0.5, eps=1e-2, bias_correction=True),
    ],
    "adam": [
        args(0.1),
        args(0.1, 0.5, 0.9, 1e-4, 1e-6),
        args(COSINE),
        args(0.1, nesterov=True),
        args(0.1, mu_dtype="float32"),
    ],
    "nadam": [args(0.1), args(0.1, 0.5, 0.9, 1e-4), args(COSINE), args(0.1, nesterov=False)],
    "nadamw": [
        args(0.1),
        args(0.1, 0.8, 0.99, weight_decay=0.1),
        args(COSINE, mask=matrices),
        args(0.1, weight_decay=0.0),
    ],
    "amsgrad": [
        args(0.1),
        args(0.1, 0.5, 0.9, 1e-4, 1e-6),
        args(COSINE),
        args(0.1, bias_correction_mu=False, bias_correction_nu=False),
    ],
    "adamw": [
        args(0.1),
        args(0.1, 0.8, 0.99, 1e-6, weight_decay=0.1),
        args(COSINE, mask=matrices),
        args(COSINE, weight_decay=LINEAR),
        args(0.1, weight_decay=0.1, mask=MASK, nesterov=True),
        args(0.1, mu_dtype="float32", weight_decay=0),
    ],
}
