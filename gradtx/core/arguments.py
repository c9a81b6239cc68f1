"""The descriptions of arguments that many definitions share.

A definition that means something else by one of these names says so under its own `Args:`.
"""

from __future__ import annotations

_MASK = """\
which parameters: a tree of booleans (or a prefix of one), a function from the params to one, or a
path pattern such as "kernel" or ~matching("bias|scale"); None means all"""
_DTYPE = (
    "; None keeps float32 (float64 for float64 parameters). `store` narrows any optimizer's state"
)

COMMON: dict[str, str] = {
    # -- steps -----------------------------------------------------------------------------------
    "learning_rate": "the length of a step: the factor on the direction. The first number to tune",
    "weight_decay": "how strongly parameters are pulled towards 0: this fraction of each, times "
    "the learning rate, is subtracted at every step, apart from the gradient. 0 switches it off",
    "independent_decay": "leave the learning rate out of the decay: each step subtracts "
    "weight_decay * param instead of learning_rate * weight_decay * param. A schedule of the rate "
    "then leaves it alone; weight_decay may have a schedule of its own. Smaller numbers are needed",
    "cautious_weight_decay": "let an element decay only where the step, too, brings it nearer to "
    "0, so that decay never works against the gradient",
    "mask": _MASK,
    "weight_decay_mask": "the parameters that decay: " + _MASK.partition(": ")[2],
    # -- running means ---------------------------------------------------------------------------
    "b1": "the decay of the running mean of gradients: the mean reaches back about 1 / (1 - b1) "
    "steps. Larger is smoother and slower to turn",
    "b2": "the decay of the running mean of squared gradients, which reaches back about "
    "1 / (1 - b2) steps. Lower it (0.95, 0.99) where gradients change quickly or b2 = 0.999 spikes",
    "b3": "the decay of the third running mean",
    "decay": "the decay of the running mean, which reaches back about 1 / (1 - decay) steps",
    "momentum": "the decay of the running sum of updates: 0.9 adds up about the last ten. None "
    "keeps no state",
    "nesterov": "look ahead: use what the running mean becomes if the next gradient equals this "
    "one",
    "bias_correction": "divide running means by 1 - decay^t, since they start from 0; without "
    "it the first steps are too short (or, divided by a root, too long)",
    "debias": "divide the running mean by 1 - decay^t, since it starts from 0",
    # -- denominators ----------------------------------------------------------------------------
    "eps": "a small number added to the denominator, which bounds the step where gradients are "
    "tiny. Raise it (1e-6, 1e-3) to damp coordinates with little signal",
    "eps_root": "a number added under the square root. Keep it 0 unless you differentiate through "
    "the optimizer: the root has no derivative at 0",
    "eps_in_sqrt": "add eps under the square root rather than to the root",
    "initial_accumulator_value": "where the sum of squares starts; a larger one makes the first "
    "steps shorter",
    "initial_scale": "where the running mean of squares starts",
    # -- dtypes ----------------------------------------------------------------------------------
    "mu_dtype": "the dtype in which the running mean of gradients is kept" + _DTYPE,
    "nu_dtype": "the dtype in which the running mean of squares is kept" + _DTYPE,
    "factor_dtype": "the dtype in which the matrices of each axis are kept; None keeps float32 "
    "(float64 for float64 parameters). They are decomposed in float32 or wider in any case",
    "accumulator_dtype": "the dtype in which the running sum is kept" + _DTYPE,
    "state_dtype": "the dtype in which the state is kept" + _DTYPE,
    # -- wrappers --------------------------------------------------------------------------------
    "inner": "the transformation that is wrapped, gradtx's or Optax's",
    "base_optimizer": "the optimizer whose steps are taken, gradtx's or Optax's",
    "mask_compatible_extra_args": "hide masked leaves also in extra arguments that are structured "
    "like the updates",
    # -- random numbers --------------------------------------------------------------------------
    "seed": "the seed of the random numbers, a whole number in [0, 2**32): the same one gives the "
    "same run",
    "key": "the seed of the random numbers: a whole number or a key of `jax.random`",
    # -- PyTorch's names -------------------------------------------------------------------------
    "lr": "the learning rate: the factor on the direction. The first number to tune",
    "maximize": "negate the gradient first, before weight decay is added, to go uphill",
    "amsgrad": "divide by the root of the largest second moment so far, so that steps which a "
    "large gradient has shortened stay short; 4 more bytes a parameter",
    "decoupled_weight_decay": "let parameters decay by lr * weight_decay a step, apart from the "
    "gradient and its moments, instead of adding L2 to the gradient",
    # -- schedules -------------------------------------------------------------------------------
    "init_value": "the value at step 0",
    "peak_value": "the value at the end of the warmup",
    "end_value": "the last value, kept afterwards",
    "warmup_steps": "for how many steps the value rises",
    "decay_steps": "how many steps it takes, from step 0, to reach the last value",
    "transition_steps": "how many steps the change takes",
    "transition_begin": "for how many steps the value stays before it begins to change",
    "decay_rate": "the factor on the value in each transition_steps",
    "staircase": "change at whole multiples of transition_steps only",
    "boundaries": "the steps at which the next one begins",
    # -- trees -----------------------------------------------------------------------------------
    "params": "the parameters, a pytree of arrays",
    "updates": "the gradients, or what earlier transformations made of them: a tree like params",
    "grads": "the gradients, a tree like params",
    "state": "what `init` or the step before returned",
}
