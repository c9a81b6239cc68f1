"""The tasks, the compiled loop, and gradtx beside Optax on it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.demo.errors import CommandError
from gradtx.demo.optimizers import OPTIMIZERS, pick
from gradtx.demo.tasks import TASKS, make_task
from gradtx.demo.training import MOST_CHUNKS, Chunk, Trainer, chunk_length, relative_difference
from gradtx.demo.trials import in_turn, refuse_untrainable


@pytest.fixture(scope="module")
def digits():
    return make_task("digits")


def pair(task, name, steps):
    """The trainers of one recipe, gradtx's and Optax's."""
    recipe = OPTIMIZERS[name]
    ours = Trainer(task, recipe.ours(task.name, steps), gradtx, steps)
    theirs = Trainer(task, recipe.theirs(optax, task.name, steps), optax, steps)
    return ours, theirs


def end(trainer, seed=0):
    """The parameters after the last step."""
    return list(trainer.run(seed))[-1].params


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_logit_for_every_class_of_every_label(name):
    task = make_task(name)
    params = task.init(jax.random.key(0))
    inputs, labels = task.draw(jax.random.key(1), task.data)
    logits = task.logits(params, inputs)
    assert logits.shape[:-1] == labels.shape
    assert logits.shape[-1] > int(labels.max())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    # An untrained model knows nothing: about log(classes) nats, about one in classes right.
    assert float(task.loss(params, task.held_out)) > 0.5 * np.log(logits.shape[-1])
    assert float(task.accuracy(params, task.held_out)) < 0.3


def test_the_transformer_sees_no_later_character():
    task = make_task("text")
    params = task.init(jax.random.key(0))
    inputs = task.held_out[0][:1]
    changed = inputs.at[0, 40].add(1)
    logits, others = task.logits(params, inputs), task.logits(params, changed)
    np.testing.assert_array_equal(logits[:, :40], others[:, :40])
    assert not np.array_equal(logits[:, 40], others[:, 40])


@pytest.mark.parametrize(
    ("name", "optimizer", "steps"), [("digits", "adam", 100), ("text", "nadam", 20)]
)
def test_training_learns(name, optimizer, steps):
    task = make_task(name)
    trainer = Trainer(task, OPTIMIZERS[optimizer].ours(name, steps), gradtx, steps)
    before, after = task.init(jax.random.key(0)), end(trainer)
    assert task.loss(after, task.held_out) < 0.7 * task.loss(before, task.held_out)
    assert task.accuracy(after, task.held_out) > task.accuracy(before, task.held_out)


@pytest.mark.parametrize("steps", [1, 5, 20, 23, 300, 307, 1000])
def test_chunks_are_equal_and_few(steps):
    length = chunk_length(steps)
    assert steps % length == 0
    assert steps // length <= MOST_CHUNKS


def test_chunks_make_one_run(digits, monkeypatch):
    steps = 40
    chunks = list(Trainer(digits, gradtx.sgd(0.5), gradtx, steps).run(0))
    monkeypatch.setattr("gradtx.demo.training.MOST_CHUNKS", 1)
    (whole,) = Trainer(digits, gradtx.sgd(0.5), gradtx, steps).run(0)
    assert [chunk.steps for chunk in chunks] == list(range(2, steps + 1, 2))
    np.testing.assert_array_equal(np.concatenate([c.losses for c in chunks]), whole.losses)
    assert relative_difference(chunks[-1].params, whole.params) == 0


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_drawn_one_by_one(name):
    task, key = make_task(name), jax.random.key(3)
    inputs, labels = task.batches(key, 5, 4)
    for i in range(4):
        one, two = task.draw(jax.random.fold_in(key, 5 + i), task.data)
        np.testing.assert_array_equal(inputs[i], one)
        np.testing.assert_array_equal(labels[i], two)


def test_runs_are_taken_in_turn_and_the_first_changes():
    taken = []

    def run(name):
        for step in range(3):
            taken.append(name)
            yield Chunk(step, np.zeros(1), {"of": name}, 0.0)

    pairs = list(in_turn([run("a"), run("b")]))
    assert [[chunk.params["of"] for chunk in pair] for pair in pairs] == [["a", "b"]] * 3
    assert "".join(taken) == "baabba"


def test_line_searches_and_others_are_given_the_objective(digits):
    for tx in (gradtx.lbfgs(), gradtx.polyak_sgd(), gradtx.sophia(1e-3)):
        before = digits.init(jax.random.key(0))
        after = end(Trainer(digits, tx, gradtx, 10))
        assert digits.score(after)[0] < digits.score(before)[0]


def test_what_cannot_train_is_refused_before_anything_is_trained(digits):
    (recipe,) = pick(["scale_by_muon"])
    with pytest.raises(CommandError, match=r"scale_by_muon cannot train digits: .*is not a matrix"):
        refuse_untrainable(recipe, digits, 5)


def test_a_seed_says_everything(digits):
    trainer = Trainer(digits, gradtx.adam(1e-3), gradtx, 20)
    assert relative_difference(end(trainer, seed=1), end(trainer, seed=1)) == 0
    assert relative_difference(end(trainer, seed=1), end(trainer, seed=2)) > 0.1


def test_the_difference_is_relative_to_the_largest_entry_of_a_leaf():
    ours = {"a": jnp.array([1.0, 200.0]), "b": jnp.array([0.0])}
    theirs = {"a": jnp.array([2.0, 200.0]), "b": jnp.array([0.0])}
    assert relative_difference(ours, theirs) == pytest.approx(1 / 200)


@pytest.mark.parametrize("name", ["nesterov", "rmsprop_momentum", "adamw_scheduled"])
def test_gradtx_and_optax_stay_together(digits, name):
    ours, theirs = pair(digits, name, 30)
    assert relative_difference(end(ours), end(theirs)) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradtx_and_optax_end_together(digits, name):
    ours, theirs = pair(digits, name, digits.steps)
    assert relative_difference(end(ours), end(theirs)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "nadam", "amsgrad"])
def test_what_is_left_between_them_is_optaxs_rounding(digits, name):
    """In float64 they are one; in float32 gradtx is the nearer to that.

    Optax's bias correction subtracts b2^t from 1 in float32, and loses digits at small t.
    """
    ours, theirs = (end(trainer) for trainer in pair(digits, name, digits.steps))
    start = digits.init(jax.random.split(jax.random.key(0))[0])
    with jax.enable_x64(True):
        images, labels = digits.data
        wide = replace(
            digits,
            data=(images.astype(jnp.float64), labels),
            init=lambda key: jax.tree.map(lambda x: x.astype(jnp.float64), start),
        )
        ours64, theirs64 = (end(trainer) for trainer in pair(wide, name, digits.steps))
        assert relative_difference(ours64, theirs64) < 1e-11
    assert relative_difference(ours, theirs64) < 3e-6
    assert relative_difference(ours, theirs64) < relative_difference(theirs, theirs64)
