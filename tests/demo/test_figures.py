"""Parts of the pictures that can be checked without looking."""

import numpy as np
import pytest

from gradtx.demo.curves import comparison_picture
from gradtx.demo.figures import _apart
from gradtx.demo.optimizers import OPTIMIZERS
from gradtx.demo.tasks import make_task
from gradtx.demo.trials import Record, Trial

from .pictures import assert_drawn


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.9], [0.1, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.52, 0.6], [0.44, 0.54, 0.64]),
    ],
)
def test_labels_move_apart_no_more_than_they_must(at, expected):
    np.testing.assert_allclose(_apart(at, 0.1), expected, atol=1e-12)


def test_labels_keep_their_order_and_their_distance():
    at = np.sort(np.random.default_rng(0).uniform(size=12))
    assert (np.diff(_apart(list(at), 0.07)) >= 0.07 - 1e-12).all()


@pytest.mark.parametrize("paired", [True, False])
def test_a_run_of_one_step_and_one_that_diverged_are_drawn(tmp_path, paired):
    task = make_task("digits")

    def record(value):
        return Record(np.full((1, 1), value), np.ones((1, 2)), 1.0, 1.0, np.ones(1))

    def trial(name, value):
        theirs = record(value) if paired else None
        return Trial(
            OPTIMIZERS[name], record(value), theirs, np.full((1, 1), value) if paired else None
        )

    comparison_picture(task, [trial("sgd", np.nan), trial("adam", 1.0)], tmp_path / "c.png")
    assert_drawn(tmp_path / "c.png")
