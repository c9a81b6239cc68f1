"""``gradtx landscape``: the paths of optimizers over functions of two variables."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from gradtx.demo.denominators import denominator_table
from gradtx.demo.descent import WALKERS, Descent, descents, walkers
from gradtx.demo.errors import unknown
from gradtx.demo.figures import ready_to_draw
from gradtx.demo.functions import FUNCTIONS, Function
from gradtx.demo.paths import landscape_picture

DEFAULT = ("ravine", "rosenbrock", "beale")


def landscape(
    names: Sequence[str] | None, optimizers: Sequence[str] | None, steps: int | None, out: Path
) -> None:
    """Draw the paths over the named functions, or over the default three."""
    for name in names or ():
        if name not in FUNCTIONS:
            raise unknown("function", name, FUNCTIONS)
    chosen = walkers(optimizers)
    ready_to_draw(out, command="landscape")
    functions = [FUNCTIONS[name] for name in dict.fromkeys(names or DEFAULT)]
    paths = {
        function.name: descents(function, steps or function.steps, chosen) for function in functions
    }
    for function in functions:
        print(ending_table(function, paths[function.name]))
    if "quadratic" in paths:
        print(denominator_table(paths["quadratic"]))
    landscape_picture(functions, paths, out)
    print(f"wrote {out}")


def ending_table(function: Function, paths: Sequence[Descent]) -> str:
    """The value of the function where each path ends."""
    lines = [f"{function.name}: {function.formula}, after {len(paths[0].points) - 1} steps"]
    width = max(10, *(len(path.walker.name) for path in paths))
    for path in paths:
        value = float(function.value(jnp.asarray(path.points[-1])))
        x, y = path.points[-1]
        rate = "" if path.rate is None else f"{path.rate:g}"
        lines.append(
            f"  {path.walker.name:<{width}} {rate:>6}  f({x:7.3f}, {y:7.3f}) = {value:.2e}"
        )
    return "\n".join(lines)


def listing() -> str:
    """The functions and the optimizers that the command knows."""
    lines = ["functions"]
    lines += [f"  {function.name:<12} {function.formula}" for function in FUNCTIONS.values()]
    lines += ["optimizers", f"  {', '.join(walker.name for walker in WALKERS)}"]
    lines.append("and any other transformation; gradtx describe --list lists them")
    return "\n".join(lines)
