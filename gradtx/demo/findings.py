"""What a comparison found, in one line."""

from collections.abc import Sequence

import numpy as np

from gradtx.core.printing import plural
from gradtx.demo.trials import Trial

_SAME = 1e-4  # relative differences up to this are rounding


def findings(trials: Sequence[Trial], steps: int) -> str:
    """How near to Optax the parameters end, and how fast; which optimizer does best."""
    paired = [trial for trial in trials if trial.theirs is not None]
    found = [_nearness(paired), _speed(paired)] if paired else []
    if paired and len(paired) < len(trials):
        found.append(f"{len(trials) - len(paired)} not in Optax")
    best = min(trials, key=lambda trial: np.nan_to_num(_loss(trial), nan=np.inf))
    if len(trials) > 1 and np.isfinite(_loss(best)):
        found.append(f"lowest held-out loss {_loss(best):.3f}: {best.recipe.name}")
    head = f"{plural(len(trials), 'optimizer')}, {plural(steps, 'step')}"
    return f"{head}: {'; '.join(found) or f'held-out loss {_loss(best):.3f}'}"


def _nearness(paired: Sequence[Trial]) -> str:
    """How far apart the parameters are at most, of those that stayed finite."""
    finite = [trial for trial in paired if np.isfinite(_apart(trial))]
    if not finite:
        return "all diverged"
    worst = max(finite, key=_apart)
    equal = sum(_apart(trial) == 0 for trial in finite)
    if _apart(worst) == 0:
        said = "the same parameters as Optax's, bit for bit"
    elif _apart(worst) <= _SAME:
        said = f"the same parameters as Optax's to {_apart(worst):.0e} ({equal} bit for bit)"
    else:
        near = sum(_apart(trial) <= _SAME for trial in finite)
        said = (
            f"the same parameters as Optax's to {_SAME:.0e} for {near} of them, to "
            f"{_apart(worst):.0e} for {worst.recipe.name}"
        )
    diverged = len(paired) - len(finite)
    return said + (f"; {diverged} diverged" if diverged else "")


def _speed(paired: Sequence[Trial]) -> str:
    """The medians of the ratios, of chunks that ran one after the other and of compilations."""
    theirs = [trial.theirs for trial in paired if trial.theirs is not None]
    steps = [q.chunk_seconds / p.ours.chunk_seconds for p, q in zip(paired, theirs, strict=True)]
    compiled = [
        p.ours.prepare_seconds / q.prepare_seconds for p, q in zip(paired, theirs, strict=True)
    ]
    faster, slower = np.median(np.concatenate(steps)), np.median(compiled)
    return f"{faster:.2f} times its steps/s, {slower:.2f} times its time to compile"


def _apart(trial: Trial) -> float:
    return np.inf if trial.difference is None else trial.difference


def _loss(trial: Trial) -> float:
    return float(trial.ours.held_out[:, 0].mean())
