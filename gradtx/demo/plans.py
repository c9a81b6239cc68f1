"""What ``gradtx plan`` prints: what a step of optimizers needs on each device of a mesh."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.sharding import AbstractMesh

import gradtx
from gradtx.core.printing import plural
from gradtx.demo import naming
from gradtx.demo.errors import CommandError
from gradtx.demo.extras import load
from gradtx.demo.terminal import console
from gradtx.sharding import Plan, models, plan
from gradtx.sharding.targets import Target, without_device

DEFAULT = ("adamw", "lion", "adafactor", "muon", 'store(adamw(0.001), "int8")')

Axes = Sequence[tuple[str, int]]


def show_plan(
    model: str,
    axes: Axes,
    layout: models.Layout,
    optimizers: Sequence[str] | None,
    zero: tuple[str, ...] | None,
    target: str | None,
    dtype: str,
) -> None:
    """Print a row for each optimizer."""
    try:
        if target is not None:
            without_device(Target.parse(target).platform)
        mesh = AbstractMesh(tuple(n for _, n in axes), tuple(name for name, _ in axes))
        params = models.parameters(model, mesh, layout, dtype)
        rows = [
            (name, plan(tx, params, zero=zero, target=target))
            for name, tx in named(optimizers or DEFAULT, model).items()
        ]
    except (ImportError, TypeError, ValueError) as error:
        raise CommandError(str(error)) from None
    terminal = console()
    over = " x ".join(f"{name} {n}" for name, n in axes)
    laid = f"layout {layout}" + (f", state over {' and '.join(zero)} too" if zero else "")
    where = "not compiled" if target is None else f"compiled for {target}"
    count = f"{models.size(model) / 1e9:.2f} billion parameters of {jnp.dtype(dtype)}"
    on = f"{plural(mesh.size, 'device')} ({over})"
    terminal.print(f"{model}: {count} on {on}, {laid}, {where}", highlight=False)
    terminal.print(table_of(rows))


def named(optimizers: Sequence[str], model: str) -> dict[str, gradtx.GradientTransformation]:
    """The optimizers by what they were called: a name alone has a learning rate of 0.001, and
    Muon's orthogonalises the stacked matrices of the model."""

    def made(text: str) -> gradtx.GradientTransformation:
        tx = naming.make_transformation([text])
        if text == "muon":
            return tx.replace(muon_weight_dimension_numbers=models.MODELS[model].matrices())
        return tx

    if model not in models.MODELS:
        raise CommandError(f"no model {model!r}; there are {', '.join(models.MODELS)}")
    return {text: made(text) for text in optimizers}


def table_of(rows: Sequence[tuple[str, Plan]]) -> Any:
    """A row for each plan, in MiB a device."""
    rich = load("rich.table", command="plan")
    box = load("rich.box", command="plan").SIMPLE_HEAD
    text = load("rich.text", command="plan").Text  # what is in brackets is no markup
    compiled = any(made.target is not None for _, made in rows)
    table = rich.Table(box=box, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("MiB a device", vertical="bottom", overflow="fold", max_width=32)
    headers = ["parameters", "gradients", "state"] + ["temporary"] * compiled + ["together"]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    if compiled:
        table.add_column("collectives", overflow="fold")
    for name, made in rows:
        table.add_row(text(name), *cells(made))
    return table


def cells(made: Plan) -> list[str]:
    """What is under the headers."""
    sizes = list(map(mebibytes, (made.params, made.grads, made.state)))
    if made.target is None:
        return [*sizes, mebibytes(made.total)]
    if made.temporary is None:
        return [*sizes, "too much", "-", "does not fit"]
    return [*sizes, *map(mebibytes, (made.temporary, made.total)), collectives_of(made)]


def collectives_of(made: Plan) -> str:
    """The collectives of a plan in words: "2 all-reduce 0.1, 12 all-gather 8,412"."""
    kinds = (made.collectives or {}).items()
    return ", ".join(f"{n} {kind} {mebibytes(size)}" for kind, (n, size) in kinds) or "none"


def mebibytes(size: int) -> str:
    """A number of bytes in MiB: whole ones, or one digit of a few."""
    value = size / 2**20
    if value >= 10 or not size:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else "<0.1"
