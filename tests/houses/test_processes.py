"""Pickled in one process, and continued in another, bit for bit."""

import pickle
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

import gradtx

from .guests import OWN, assert_same

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": jnp.ones(3)}
RUNS = {name: tx for name, tx in OWN.items() if name != "masked"} | {
    "scheduled": gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)),
    "noise": gradtx.chain(gradtx.add_noise(0.1, 0.55, 0), gradtx.lion(0.1)),
    "muon": gradtx.muon(0.1),
}
THERE = """
import pickle, sys
import gradtx, jax
runs = pickle.load(sys.stdin.buffer)
done = {}
for name, (tx, params, state) in runs.items():
    for _ in range(2):
        params, state = gradtx.step(tx, params, state, params)
    done[name] = (tx, params, state)
assert "optax" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(done))
"""


def stepped(tx: Any, params: Any, state: Any) -> Any:
    for _ in range(2):
        params, state = gradtx.step(tx, params, state, params)
    return params, state


def test_goes_on_in_another_process() -> None:
    half = {name: (tx, *stepped(tx, PARAMS, tx.init(PARAMS))) for name, tx in RUNS.items()}
    there = subprocess.run(
        [sys.executable, "-c", THERE], input=pickle.dumps(half), capture_output=True, check=True
    )
    done = pickle.loads(there.stdout)
    for name, (tx, params, state) in half.items():
        again, *got = done[name]
        assert again == tx
        assert hash(again) == hash(tx)
        assert_same(tuple(got), stepped(tx, params, state))
        assert not np.array_equal(got[0]["kernel"], params["kernel"])
