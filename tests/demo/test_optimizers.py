"""The optimizers that a command takes, and what is said of them."""

import numpy as np
import optax
import pytest

import gradtx
from gradtx.demo.errors import CommandError
from gradtx.demo.findings import findings
from gradtx.demo.optimizers import OPTIMIZERS, Family, family_of, pick
from gradtx.demo.trials import Record, Trial


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_family_of_the_comparisons_own_is_told_from_their_parts(name):
    recipe = OPTIMIZERS[name]
    assert family_of(recipe.ours("digits", 300)) is recipe.family


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("torch.adam()", Family.MOMENTS),
        ("adagrad(0.1)", Family.SQUARE),
        ("torch.adagrad()", Family.SQUARE),
        ("chain(clip(1.0), sgd(0.1))", Family.GRADIENT),
        ("muon(0.1)", Family.OTHER),
        ("lion(0.1)", Family.OTHER),
    ],
)
def test_the_family_of_others(text, family):
    assert family_of(gradtx.parse(text)) is family


@pytest.mark.parametrize(
    ("text", "ours", "theirs"),
    [
        ("adam", gradtx.adam(3e-3), optax.adam(3e-3)),
        ("adam:0.01", gradtx.adam(0.01), optax.adam(0.01)),
        ("lion", gradtx.lion(1e-3), optax.lion(1e-3)),
        ("lion:3e-4", gradtx.lion(3e-4), optax.lion(3e-4)),
        ("muon", gradtx.muon(1e-3), optax.contrib.muon(1e-3)),
        ("torch.adam:0.1", gradtx.torch.adam(0.1), None),
        ("freeze", gradtx.freeze(), None),
        ("adamw(1e-3, b2=0.95)", gradtx.adamw(1e-3, b2=0.95), optax.adamw(1e-3, b2=0.95)),
        ("adam(1e-3, nu_dtype='bfloat16')", gradtx.adam(1e-3, nu_dtype="bfloat16"), None),
    ],
)
def test_what_is_written_is_made_in_both_libraries(text, ours, theirs):
    (recipe,) = pick([text])
    assert recipe.name == text
    assert recipe.ours("digits", 300) == ours
    made = recipe.theirs(optax, "digits", 300)
    assert (made is None) == (theirs is None)
    if made is not None:
        params = {"w": np.ones((2, 3), np.float32)}
        updates, _ = made.update(params, made.init(params), params)
        expected, _ = theirs.update(params, theirs.init(params), params)
        np.testing.assert_array_equal(updates["w"], expected["w"])


def test_each_is_picked_once_in_the_order_given():
    assert [r.name for r in pick(["sgd", "lion", "sgd"])] == ["sgd", "lion"]
    assert [r.name for r in pick(None)] == list(OPTIMIZERS)
    with pytest.raises(CommandError, match="no optimizer named"):
        pick([])


def record(loss, seconds=1.0):
    return Record(
        np.full((1, 4), loss), np.array([[loss, 0.9]]), 2 * seconds, 1.0, np.full(4, seconds)
    )


def trial(name, loss, difference, seconds=1.0):
    if difference is None:
        return Trial(OPTIMIZERS[name], record(loss))
    return Trial(OPTIMIZERS[name], record(loss), record(loss, seconds), np.full((1, 2), difference))


SPEED = "2.00 times its steps/s, 0.50 times its time to compile"


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        (
            [trial("sgd", 0.2, 0.0, 2.0), trial("adam", 0.1, 7e-6, 2.0)],
            "2 optimizers, 4 steps: the same parameters as Optax's to 7e-06 (1 bit for bit); "
            f"{SPEED}; lowest held-out loss 0.100: adam",
        ),
        (
            [trial("sgd", 0.2, 0.0, 2.0)],
            f"1 optimizer, 4 steps: the same parameters as Optax's, bit for bit; {SPEED}",
        ),
        (
            [trial("sgd", 0.2, 1e-7, 2.0), trial("adamw", 0.1, 2e-3, 2.0)],
            "2 optimizers, 4 steps: the same parameters as Optax's to 1e-04 for 1 of them, to "
            f"2e-03 for adamw; {SPEED}; lowest held-out loss 0.100: adamw",
        ),
        (
            [trial("sgd", np.nan, np.nan, 2.0), trial("adam", 0.1, 0.0, 2.0)],
            "2 optimizers, 4 steps: the same parameters as Optax's, bit for bit; 1 diverged; "
            f"{SPEED}; lowest held-out loss 0.100: adam",
        ),
        (
            [trial("sgd", np.nan, np.nan, 2.0)],
            f"1 optimizer, 4 steps: all diverged; {SPEED}",
        ),
        (
            [trial("sgd", 0.2, 0.0, 2.0), trial("adam", 0.1, None)],
            f"2 optimizers, 4 steps: the same parameters as Optax's, bit for bit; {SPEED}; "
            "1 not in Optax; lowest held-out loss 0.100: adam",
        ),
        ([trial("sgd", 0.2, None)], "1 optimizer, 4 steps: held-out loss 0.200"),
    ],
)
def test_what_was_found_is_one_line(trials, said):
    assert findings(trials, 4) == said
