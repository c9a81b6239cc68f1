"""Which of Optax's tests are run, and where gradtx is different from what they expect.

The keys of the tables are regular expressions, searched for in `alias_test.Class.method (its
parameters)`.
"""

VERSION = "0.2.8"

MODULES = (
    "_src/alias_test",
    "_src/base_test",
    "_src/combine_test",
    "_src/factorized_test",
    "_src/float64_test",
    "_src/linear_algebra_test",
    "_src/linesearch_test",
    "_src/lookahead_test",
    "_src/numerics_test",
    "_src/sharding_test",
    "_src/transform_test",
    "_src/update_test",
    "_src/utils_test",
    "contrib/_common_test",
    "contrib/_complex_valued_test",
    "contrib/_galore_test",
    "contrib/_mechanic_test",
    "contrib/_muon_test",
    "contrib/_privacy_test",
    "contrib/_reduce_on_plateau_test",
    "contrib/_sam_test",
    "contrib/_schedule_free_test",
    "schedules/_inject_test",
    "schedules/_join_test",
    "schedules/_schedule_test",
    "transforms/_accumulation_test",
    "transforms/_adding_test",
    "transforms/_clipping_test",
    "transforms/_combining_test",
    "transforms/_conditionality_test",
    "transforms/_constraining_test",
    "transforms/_freezing_test",
    "transforms/_layouts_test",
    "transforms/_masking_test",
    "transforms/_monitoring_test",
    "tree_utils/_casting_test",
    "tree_utils/_random_test",
    "tree_utils/_state_utils_test",
    "tree_utils/_tree_math_test",
)

_WIDE = "state is in float32 or wider whatever the dtype of the parameters"
_INTEGERS = "a parameter that is a whole number has no gradient: it is refused, by its path"
_EARLY = "a bad argument is refused where it is given"

DIFFERENT = {
    # Numerics.
    r"alias_test.*test_explicit_dtype\d+ \(params_dtype='bfloat16', state_dtype=None": _WIDE,
    r"_schedule_free_test.*test_explicit_dtype\d+ \(params_dtype='bfloat16', state_dtype=None": (
        _WIDE
    ),
    r"_galore_test.*test_mu_dtype_controls_moment_dtype": _WIDE,
    r"_inject_test.*test_hyperparam_default_dtype_bf16": (
        "injected numbers are in float32: in bfloat16 a b2 of 0.999 is 1"
    ),
    r"alias_test.*test_explicit_dtype\d+ \(params_dtype='complex64', state_dtype='bfloat16'": (
        "JAX has no complex number of two bfloat16: refused"
    ),
    r"alias_test.*test_explicit_dtype\d+ \(params_dtype='complex64', state_dtype='float32'": (
        "the momentum of a complex parameter stays complex: Optax drops its imaginary part"
    ),
    r"_tree_math_test.*test_tree_vdot$": (
        "asks for 1e-7 in complex64, a float32 rounding: another order of summation"
    ),
    # What is checked.
    r"base_test.*test_extra_args_with_callback": _INTEGERS,
    r"combin(e|ing)_test\.ExtraArgsTest.test_extra_args(_positional_params)?$": _INTEGERS,
    r"combin(e|ing)_test\.PartitionTest.test_extra_args$": _INTEGERS,
    r"_inject_test.*test_inject_hyperparams_starts_with_step_count_zero": _INTEGERS,
    r"transform_test.*test_lion_invalid_mode_raises": _EARLY,
    r"_schedule_test\.(Polynomial|Exponential)Test.test_(zero_steps|nonvalid_transition_steps)": (
        "a negative number of steps is refused; in Optax the schedule is constant, with a log line"
    ),
    r"update_test.*test_none_argument_apply_updates": (
        "an update for a parameter that is not there is refused"
    ),
    r"_adding_test.*test_none_argument": (
        "a transformation without state refuses one that holds a number"
    ),
    r"linesearch_test.*raises_on_unused_extra_args": (
        "looks for the words of Optax's TypeError; ours are others"
    ),
    r"linesearch_test.*test_failure_(descent_direction|flat_fun|too_small_max_stepsize)$": (
        "looks for the words that Optax prints where a search fails; ours are others"
    ),
    r"linesearch_test.*test_value_and_grad_from_state$": (
        "two searches in a state: a ValueError, as for none; Optax's is a KeyError"
    ),
    r"_freezing_test.*bad_structure": (
        "a ValueError that says what a mask is; the test looks for the words of an older JAX and "
        "fails with Optax too"
    ),
    # What things are.
    r"base_test.*test_isinstance": "every transformation takes extra arguments: one class",
    r"_masking_test.*test_masked_state_structure": (
        "a masked subtree keeps a MaskedNode for each leaf, not one in its place: same key paths"
    ),
    r"_schedule_test.*test_zero_peak_value": (
        "a cosine from a peak of 0 to another end value goes there; Optax's stays at 0"
    ),
}

_PRIVATE = "tests a private function of Optax or of the test module itself"

OUT_OF_SCOPE = {
    r"alias_test.*test_(plain_)?preconditioning": _PRIVATE,
    r"_muon_test.*test_reshape_inverse": _PRIVATE,
    r"^utils_test(?!\.ScaleGradient)": _PRIVATE,
    r"linear_algebra_test.*test_nnls": "a solver that transforms no gradients",
    r"sharding_test.*microbatch": "microbatching stays with Optax",
    r"_clipping_test.*test_clip_by_block_rms": (
        "asks for 1e-7 in float32 and fails with Optax too, with this JAX"
    ),
}

LONG = {
    r"_adding_test": "many draws",
    r"_accumulation_test": "a network for each dtype",
    r"_(muon|galore)_test": "long to compile",
    r"linear_algebra_test": "long to compile",
    r"_clipping_test": "arrays of five axes",
    r"transform_test": "long to compile",
    r"alias_test.*test_optimization": "10,000 steps",
    r"_common_test.*test_optimizers\d": "30,000 steps",
}
