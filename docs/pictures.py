"""The pictures of the pages: `python docs/pictures.py` writes `docs/images/`.

Three are those of the command line, `gradtx landscape`, `gradtx schedule` and `gradtx plot` of the
run that `examples/log_report.py` logs. Each of the others
shows two neighbouring steps of the way from SGD to AdamW, on the smallest problem on which they
differ.
"""

import contextlib
import runpy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import gradtx
from gradtx import cli
from gradtx.demo.figures import INK, MUTED, PALETTE, new_figure, quiet, save
from gradtx.demo.functions import ravine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).resolve().parent / "images"
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
START = jnp.array([-9.0, 1.6])
Named = tuple[str, gradtx.GradientTransformation]


def followed(tx: gradtx.GradientTransformation, grad: Callable, params: jax.Array, steps: int):
    """The parameters after 0, 1, ..., steps steps; `grad(params, key)` is the gradient."""

    def step(carry, key):
        params, state = gradtx.step(tx, grad(carry[0], key), carry[1], carry[0])
        return (params, state), params

    keys = jax.random.split(jax.random.key(0), steps)
    _, path = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), keys))(params)
    return np.concatenate([params[None], path])


def on_the_ravine(name: str, optimizers: Sequence[Named], steps: int = 40) -> None:
    """Paths over the contours of the ravine."""
    figure = new_figure("docs", 6.4, 3.0)
    axes: Axes = figure.subplots()
    x, y = np.meshgrid(np.linspace(-10.2, 3.2, 200), np.linspace(-2.3, 2.3, 120))
    height = np.sqrt(np.asarray(ravine(jnp.array([x, y]))))
    axes.contour(x, y, height, levels=14, colors="#8fa3ad", linewidths=0.5)
    for (label, tx), color, width in zip(optimizers, PALETTE, (3.0, 1.6), strict=False):
        path = followed(tx, lambda p, _: jax.grad(ravine)(p), START, steps)
        axes.plot(*path.T, ".-", color=color, linewidth=width, markersize=width + 3, label=label)
    axes.plot(*START, "o", markersize=8, color="white", markeredgecolor=INK, zorder=5)
    axes.plot(0, 0, "*", markersize=15, color="#ffd700", markeredgecolor=INK, zorder=5)
    quiet(axes)
    axes.grid(visible=False)
    axes.set(xlim=(-10.2, 3.2), ylim=(-2.3, 2.3), xticks=[], yticks=[])
    axes.legend(loc="lower right", fontsize=8, framealpha=0.95, edgecolor="none")
    save(figure, IMAGES / f"{name}.png")


def lines(
    name: str,
    curves: Sequence[tuple[str, np.ndarray, str]],
    title: str,
    legend: str | tuple[float, float] = "best",
    **scales: Any,
) -> None:
    """Curves against the step: (name, heights, style)."""
    figure = new_figure("docs", 6.4, 3.0)
    axes: Axes = figure.subplots()
    for (text, heights, style), color in zip(curves, PALETTE, strict=False):
        steps = np.arange(1, len(heights) + 1)
        axes.plot(steps, heights, style, color=color, linewidth=1.8, label=text)
    quiet(axes)
    axes.set_xlabel("step", color=MUTED)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set(**scales)
    axes.legend(loc=legend, fontsize=8, framealpha=0.95, edgecolor="none")
    save(figure, IMAGES / f"{name}.png")


def _sizes(tx: gradtx.GradientTransformation) -> np.ndarray:
    """The sizes of a thousand steps under a gradient that is always 1."""
    return -np.diff(followed(tx, lambda p, _: jnp.ones_like(p), jnp.zeros(()), 1000))


def steps_under_a_constant_gradient() -> None:
    """What AdaGrad lacks, and what RMSProp and Adam without a correction lack at first."""
    title = "Size of the step, where the gradient is always 1"
    adagrad = gradtx.adagrad(0.1, initial_accumulator_value=0.0)
    curves = [
        ("adagrad(0.1, initial_accumulator_value=0.0)", _sizes(adagrad), "-"),
        ("rmsprop(0.1)", _sizes(gradtx.rmsprop(0.1)), "-"),
    ]
    lines("rmsprop", curves, title, xscale="log", yscale="log")
    uncorrected = gradtx.adam(0.1, bias_correction=False)
    curves = [
        ("adam(0.1)", _sizes(gradtx.adam(0.1)), "-"),
        ("adam(0.1, bias_correction=False)", _sizes(uncorrected), "-"),
    ]
    lines("bias", curves, title, xscale="log", ylim=(0, 0.8))


def outlier() -> None:
    """The distance to the minimum of p^2 / 2, with one gradient that is far too large."""
    steps, size = 200, jnp.ones(200).at[100].set(1000)

    def distance(tx: gradtx.GradientTransformation) -> np.ndarray:
        def step(carry, inputs):
            params, state = carry
            key, factor = inputs
            grad = factor * (params + 0.1 * jax.random.normal(key, params.shape))
            params, state = gradtx.step(tx, grad, state, params)
            return (params, state), jnp.linalg.norm(params)

        params = jnp.ones(10)
        keys = jax.random.split(jax.random.key(0), steps)
        return np.asarray(jax.lax.scan(step, (params, tx.init(params)), (keys, size))[1])

    sgd = gradtx.sgd(0.1, momentum=0.9)
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), sgd)
    curves = [
        ("sgd(0.1, momentum=0.9)", distance(sgd), "-"),
        ("the same behind clip_by_global_norm(1.0)", distance(clipped), "-"),
    ]
    title = "Distance to the minimum; one gradient is a thousand times too large"
    lines("clipping", curves, title, yscale="log")


def decay() -> None:
    """A weight under decay, whose gradient is noise of different sizes."""
    sizes = jnp.array([0.01, 1.0, 100.0])

    def mean_weights(tx):
        def grad(p, key):
            return sizes * jax.random.normal(key, p.shape)

        return followed(tx, grad, jnp.ones((2000, 3)), 1000).mean(axis=1)

    l2 = mean_weights(gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.adam(0.01)))
    decoupled = mean_weights(gradtx.adamw(0.01, weight_decay=0.1))
    curves = [(f"L2, noise of {size:g}", l2[:, i], "-") for i, size in enumerate(sizes)]
    curves.append(("adamw, all three", decoupled[:, 1], "--"))
    lines("decay", curves, "Mean of 2000 weights under decay and noise", legend=(0.62, 0.58))


def of_the_command_line() -> None:
    """Those that the pages show as the commands draw them."""
    cli.main(["landscape", "--function", "ravine", "--out", str(IMAGES / "ravine.png")])
    schedule = "init_value=0 peak_value=1e-3 warmup_steps=100 decay_steps=1000"
    out = ["--out", str(IMAGES / "schedule.png")]
    cli.main(["schedule", "warmup_cosine_decay_schedule", *schedule.split(), *out])
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        runpy.run_path(str(EXAMPLES / "log_report.py"))
        cli.main(["plot", "run.jsonl", "--out", str(IMAGES / "run.png")])


def shrink() -> None:
    """64 colours are enough for all of them, and take a third of the space."""
    for path in IMAGES.glob("*.png"):
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def main() -> None:
    """Write them all."""
    IMAGES.mkdir(exist_ok=True)
    sgd = ("sgd(0.065)", gradtx.sgd(0.065))
    adagrad = ("adagrad(1.3)", gradtx.adagrad(1.3))
    slow = ("sgd(0.03, momentum=0.6)", gradtx.sgd(0.03, momentum=0.6))
    nesterov = "sgd(0.03, momentum=0.6, nesterov=True)"
    on_the_ravine("sgd", [sgd, ("sgd(0.02)", gradtx.sgd(0.02))])
    on_the_ravine("momentum", [sgd, ("sgd(0.065, momentum=0.6)", gradtx.sgd(0.065, momentum=0.6))])
    on_the_ravine("nesterov", [slow, (nesterov, gradtx.sgd(0.03, momentum=0.6, nesterov=True))])
    on_the_ravine("adagrad", [sgd, adagrad])
    on_the_ravine(
        "adam", [("rmsprop(0.18)", gradtx.rmsprop(0.18)), ("adam(0.4)", gradtx.adam(0.4))]
    )
    steps_under_a_constant_gradient()
    decay()
    outlier()
    of_the_command_line()
    shrink()


if __name__ == "__main__":
    main()
