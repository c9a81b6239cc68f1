"""Learning-rate-free optimizers, schedule-free ones, SAM, Sophia, and scaling on a plateau."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

import gradtx

from .example import E, Example, T, linear, only_w


def quartic(params: Any) -> Any:
    """A loss with a Hessian that is diagonal and changes."""
    return sum(jnp.sum(x**4 + x**2) for x in jax.tree.leaves(params))


def quartic_gradient(params: Any, i: Any) -> Any:
    """Its gradient; i is the step of the climb."""
    return jax.tree.map(lambda x: 4 * x**3 + 2 * x, params)


OBJECTIVE = {"obj_fn": jax.tree_util.Partial(quartic)}
GRADIENT = {"grad_fn": jax.tree_util.Partial(quartic_gradient)}
VALUE = {"value": 0.5}


def climb(lib: Any) -> Any:
    """What SAM climbs with."""
    normalize = getattr(lib, "normalize", None) or contrib.normalize
    return lib.chain(normalize(), lib.sgd(0.1))


EXAMPLES: tuple[Example, ...] = (
    # -- coin betting, MADGRAD -------------------------------------------------------------------
    E(
        "scale_by_cocob",
        "default",
        gradtx.scale_by_cocob,
        needs_params=True,
        idle=("eps",),
        twin=contrib.scale_by_cocob,
    ),
    E(
        "cocob",
        "default",
        gradtx.cocob,
        needs_params=True,
        rates=(1.0, 1.0),
        idle=("eps",),
        twin=contrib.cocob,
    ),
    E(
        "cocob",
        "decay under a mask",
        lambda: gradtx.cocob(linear(), 50.0, 1e-4, 0.1, only_w),
        needs_params=True,
        written_out=False,
    ),
    E(
        "scale_by_madgrad",
        "default",
        lambda: gradtx.scale_by_madgrad(0.1),
        needs_params=True,
        twin=lambda: contrib.scale_by_madgrad(0.1),
    ),
    E(
        "madgrad",
        "default",
        lambda: gradtx.madgrad(0.1),
        needs_params=True,
        rates=(0.1, 0.05),
        twin=lambda: contrib.madgrad(0.1),
    ),
    E(
        "madgrad",
        "decay scheduled",
        lambda: gradtx.madgrad(linear(), 0.5, 0.1, 1e-3),
        needs_params=True,
    ),
    # -- distance over gradients -----------------------------------------------------------------
    E("dog", "default", gradtx.dog, needs_params=True, couples=True, twin=contrib.dog),
    E(
        "dog",
        "first distance",
        lambda: gradtx.dog(1.0, ("distance", 0.1), weight_decay=0.01),
        needs_params=True,
        couples=True,
        rates=(1.0, 1.0),
        twin=lambda: contrib.dog(1.0, ("distance", 0.1), weight_decay=0.01),
    ),
    E(
        "dog",
        "first learning rate",
        lambda: gradtx.dog(linear(), ("learning_rate", 0.1), mask=T, weight_decay=0.1),
        needs_params=True,
        couples=True,
        whole_tree=True,
    ),
    E("dowg", "default", gradtx.dowg, needs_params=True, couples=True, twin=contrib.dowg),
    E(
        "dowg",
        "first distance",
        lambda: gradtx.dowg(1.0, 0.1, 1e-3, weight_decay=0.01),
        needs_params=True,
        couples=True,
        rates=(1.0, 1.0),
        twin=lambda: contrib.dowg(1.0, 0.1, 1e-3, weight_decay=0.01),
    ),
    E(
        "scale_by_distance_over_gradients",
        "default",
        gradtx.scale_by_distance_over_gradients,
        unmoved=("reps_rel",),
        needs_params=True,
        float32=True,
        written_out=False,
    ),
    E(
        "scale_by_distance_over_gradients",
        "bf16",
        lambda: gradtx.scale_by_distance_over_gradients(1e-2, 1e-3, "bfloat16", 0.5),
        unmoved=("reps_rel",),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    # -- D-Adaptation, Prodigy -------------------------------------------------------------------
    E(
        "dadapt_adamw",
        "default",
        gradtx.dadapt_adamw,
        needs_params=True,
        couples=True,
        twin=contrib.dadapt_adamw,
    ),
    E(
        "dadapt_adamw",
        "first rate",
        lambda: gradtx.dadapt_adamw(1.0, (0.8, 0.99), 1e-6, 0.01, 0.01),
        needs_params=True,
        couples=True,
        rates=(1.0, 1.0),
        twin=lambda: contrib.dadapt_adamw(1.0, (0.8, 0.99), 1e-6, 0.01, 0.01),
    ),
    E(
        "prodigy",
        "default",
        gradtx.prodigy,
        needs_params=True,
        couples=True,
        idle=("estim_lr_coef",),
        twin=contrib.prodigy,
    ),
    E(
        "prodigy",
        "first rate",
        lambda: gradtx.prodigy(1.0, (0.8, 0.99), 0.9, 1e-6, 0.01, 0.5, 0.01),
        needs_params=True,
        couples=True,
        rates=(1.0, 1.0),
        idle=("estim_lr_coef", "beta3"),
        twin=lambda: contrib.prodigy(1.0, (0.8, 0.99), 0.9, 1e-6, 0.01, 0.5, 0.01),
    ),
    E(
        "prodigy",
        "safe warmup",
        lambda: gradtx.prodigy(linear(), estim_lr0=0.01, safeguard_warmup=True),
        needs_params=True,
        couples=True,
        idle=("estim_lr_coef",),
    ),
    # -- Polyak's step size ----------------------------------------------------------------------
    E(
        "scale_by_polyak",
        "default",
        gradtx.scale_by_polyak,
        couples=True,
        idle=("max_learning_rate",),
        twin=optax.scale_by_polyak,
        extra=VALUE,
    ),
    E(
        "scale_by_polyak",
        "positive part",
        lambda: gradtx.scale_by_polyak(1.0, 0.5, 0.1, "sps+"),
        couples=True,
        idle=("f_min", "max_learning_rate", "eps"),
        twin=lambda: optax.scale_by_polyak(1.0, 0.5, 0.1, "sps+"),
        extra=VALUE,
        written_out=False,
    ),
    E(
        "polyak_sgd",
        "default",
        gradtx.polyak_sgd,
        couples=True,
        rates=(0.3, 3e-3),
        idle=("max_learning_rate",),
        twin=optax.polyak_sgd,
        extra=VALUE,
    ),
    E(
        "polyak_sgd",
        "scaled",
        lambda: gradtx.polyak_sgd(0.1, linear(), -0.5, 0.1),
        couples=True,
        idle=("max_learning_rate",),
        extra=VALUE,
    ),
    E(
        "momo",
        "default",
        gradtx.momo,
        needs_params=True,
        couples=True,
        rates=(0.1, 1e-3),
        idle=("learning_rate",),
        twin=contrib.momo,
        extra=VALUE,
    ),
    E(
        "momo",
        "adapting under decay",
        lambda: gradtx.momo(0.05, 0.5, -1.0, 0.1, True),
        needs_params=True,
        couples=True,
        idle=("lower_bound",),
        extra={"value": 3.0},
    ),
    E(
        "momo_adam",
        "default",
        gradtx.momo_adam,
        needs_params=True,
        couples=True,
        rates=(0.1, 0.03),
        idle=("lower_bound",),
        twin=contrib.momo_adam,
        extra={"value": 5.0},
    ),
    E(
        "momo_adam",
        "adapting under decay",
        lambda: gradtx.momo_adam(0.5, 0.8, 0.9, 1e-3, -1.0, 0.1, True),
        needs_params=True,
        couples=True,
        idle=("lower_bound",),
        extra={"value": 3.0},
    ),
    # -- plateaus --------------------------------------------------------------------------------
    E(
        "reduce_on_plateau",
        "default",
        gradtx.reduce_on_plateau,
        idle=tuple(contrib.reduce_on_plateau.__annotations__),
        twin=contrib.reduce_on_plateau,
        extra=VALUE,
    ),
    E(
        "reduce_on_plateau",
        "impatient",
        lambda: gradtx.reduce_on_plateau(0.5, 1, 1e-2, 1e-2, 0, 1, 0.1),
        idle=("rtol", "atol", "min_scale", "cooldown"),
        twin=lambda: contrib.reduce_on_plateau(0.5, 1, 1e-2, 1e-2, 0, 1, 0.1),
        extra={"value": -0.5},
    ),
    # -- schedule-free ---------------------------------------------------------------------------
    E(
        "schedule_free",
        "sgd",
        lambda: gradtx.schedule_free(gradtx.sgd(0.1), 0.1),
        needs_params=True,
        idle=("learning_rate", "weight_lr_power"),
        twin=lambda: contrib.schedule_free(optax.sgd(0.1), 0.1),
    ),
    E(
        "schedule_free",
        "scheduled bf16",
        lambda: gradtx.schedule_free(gradtx.adam(linear(), b1=0.0), linear(), 0.8, 1.0, "bfloat16"),
        needs_params=True,
        idle=("learning_rate",),  # it falls, and the largest so far counts
        narrow=True,
        written_out=False,
    ),
    E(
        "schedule_free_sgd",
        "default",
        gradtx.schedule_free_sgd,
        needs_params=True,
        idle=("weight_lr_power",),
        rates=(0.1, 1e-3),
        twin=contrib.schedule_free_sgd,
    ),
    E(
        "schedule_free_sgd",
        "warmup decay",
        lambda: gradtx.schedule_free_sgd(0.1, 3, 0.8, 0.1, 1.0),
        needs_params=True,
    ),
    E(
        "schedule_free_adamw",
        "default",
        gradtx.schedule_free_adamw,
        needs_params=True,
        idle=("weight_lr_power",),
        rates=(0.1, 0.05),
    ),
    E(
        "schedule_free_adamw",
        "large rate",
        lambda: gradtx.schedule_free_adamw(0.1),
        needs_params=True,
        idle=("weight_lr_power",),
        twin=lambda: contrib.schedule_free_adamw(0.1),
    ),
    E(
        "schedule_free_adamw",
        "warmup decay",
        lambda: gradtx.schedule_free_adamw(linear(), 5, 0.8, 0.9, 1e-3, 0.1, 0.5),
        needs_params=True,
    ),
    # -- wrappers --------------------------------------------------------------------------------
    E(
        "mechanize",
        "sgd",
        lambda: gradtx.mechanize(gradtx.sgd(1.0)),
        needs_params=True,
        couples=True,
        idle=("weight_decay",),
    ),
    E(
        "mechanize",
        "adam",
        lambda: gradtx.mechanize(gradtx.adam(1.0), 0.1, 1e-4, 0.01, 3),
        needs_params=True,
        couples=True,
        twin=lambda: contrib.mechanize(optax.adam(1.0), 0.1, 1e-4, 0.01, 3),
    ),
    E(
        "sam",
        "default",
        lambda: gradtx.sam(gradtx.sgd(0.1), climb(gradtx)),
        needs_params=True,
        couples=True,
        twin=lambda: contrib.sam(optax.sgd(0.1), climb(optax)),
    ),
    E(
        "sam",
        "three steps that go on",
        lambda: gradtx.sam(gradtx.adam(0.1), gradtx.sgd(0.1, 0.9), 3, False),
        needs_params=True,
        couples=True,
    ),
    E(
        "sam",
        "opaque",
        lambda: gradtx.sam(gradtx.adam(0.1), climb(gradtx), 3, opaque_mode=True),
        needs_params=True,
        couples=True,
        extra=GRADIENT,
    ),
    # -- Sophia ----------------------------------------------------------------------------------
    E(
        "hutchinson_estimator_diag_hessian",
        "default",
        gradtx.hutchinson_estimator_diag_hessian,
        needs_params=True,
        couples=True,
        real=True,
        twin=contrib.hutchinson_estimator_diag_hessian,
        extra=OBJECTIVE,
    ),
    E(
        "scale_by_sophia",
        "default",
        gradtx.scale_by_sophia,
        needs_params=True,
        couples=True,
        real=True,
        idle=("gamma",),
        extra=OBJECTIVE,
    ),
    E(
        "sophia",
        "default",
        lambda: gradtx.sophia(0.1),
        needs_params=True,
        couples=True,
        real=True,
        idle=("gamma",),
        twin=lambda: contrib.sophia(0.1),
        extra=OBJECTIVE,
    ),
    E(
        "sophia",
        "curvature at every step",
        lambda: gradtx.sophia(0.1, 0.9, 0.9, gamma=1.0, update_interval=1),
        needs_params=True,
        couples=True,
        real=True,
        rates=(0.1, 0.1),
        idle=("eps",),
        extra=OBJECTIVE,
    ),
    E(
        "sophia",
        "often bf16",
        lambda: gradtx.sophia(
            linear(), 0.9, 0.9, 0.5, 0.1, None, 0.5, None, 2, mu_dtype="bfloat16"
        ),
        needs_params=True,
        couples=True,
        real=True,
        narrow=True,
        extra=OBJECTIVE,
        written_out=False,
    ),
)
