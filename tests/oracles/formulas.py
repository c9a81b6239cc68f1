"""Update rules in NumPy float64, written from the papers' formulas.

Each oracle is a generator: it takes the gradients of one array, one a step, and yields the
updates. An oracle that needs the parameters takes them as a second sequence. They compose as
the formulas do: ``descend(decay_weights(adam(grads), params, 0.01), 0.1)`` is AdamW.

Nothing here knows the library under test, and nothing here is written for speed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

Array = np.ndarray
Arrays = Iterable[np.ndarray]
Updates = Iterator[np.ndarray]


# Momentum: Polyak 1964; Sutskever, Martens, Dahl & Hinton 2013 (Nesterov's form).


def polyak(grads: Arrays, decay: float) -> Updates:
    """v <- decay v + g, u = v."""
    velocity: Array | float = 0.0
    for g in grads:
        velocity = decay * velocity + g
        yield velocity


def nesterov(grads: Arrays, decay: float) -> Updates:
    """v <- decay v + g, u = g + decay v: Nesterov's step seen from the shifted point."""
    velocity: Array | float = 0.0
    for g in grads:
        velocity = decay * velocity + g
        yield g + decay * velocity


def dampened(grads: Arrays, decay: float, dampening: float) -> Updates:
    """PyTorch's buffer: the first is g, then v <- decay v + (1 - dampening) g."""
    velocity = None
    for g in grads:
        velocity = g if velocity is None else decay * velocity + (1 - dampening) * g
        yield velocity


def mean(grads: Arrays, decay: float, debias: bool) -> Updates:
    """m <- decay m + (1 - decay) g, over 1 - decay^t if debiased."""
    m: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        m = decay * m + (1 - decay) * g
        yield m / (1 - decay**t) if debias else m


def classical_nag(
    gradient: Callable[[Array], Array], start: Array, rate: float, decay: float, steps: int
) -> tuple[list[Array], list[Array]]:
    """Sutskever et al., equations 3 and 4, the gradient taken at the look-ahead point.

        v <- decay v - rate gradient(theta + decay v)        theta <- theta + v

    Returns theta after each step, and the look-ahead point from which the next step starts.
    """
    theta, velocity = start, np.zeros_like(start)
    thetas, lookaheads = [], []
    for _ in range(steps):
        velocity = decay * velocity - rate * gradient(theta + decay * velocity)
        theta = theta + velocity
        thetas.append(theta)
        lookaheads.append(theta + decay * velocity)
    return thetas, lookaheads


# AdaGrad: Duchi, Hazan & Singer 2011. RMSProp: Tieleman & Hinton 2012; centered: Graves 2013.


def adagrad(grads: Arrays, initial: float, eps: float, eps_in_sqrt: bool = True) -> Updates:
    """s <- s + g^2, u = g / sqrt(s + eps) or g / (sqrt(s) + eps); zero where s is zero."""
    s: Array | float = initial
    for g in grads:
        s = s + g**2
        root = np.sqrt(s + eps) if eps_in_sqrt else np.sqrt(s) + eps
        yield np.where(s > 0, g / np.where(s > 0, root, 1.0), 0.0)


def rmsprop(
    grads: Arrays,
    decay: float,
    eps: float,
    initial: float = 0.0,
    eps_in_sqrt: bool = True,
    debias: bool = False,
    centered: bool = False,
) -> Updates:
    """Divide by the running root mean square, or by the running standard deviation.

    n <- decay n + (1 - decay) g^2      m <- decay m + (1 - decay) g
    u = g / sqrt(n - m^2 + eps)   or   g / (sqrt(n - m^2) + eps)   (m = 0 unless centered)
    """
    n: Array | float = initial
    m: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        n = decay * n + (1 - decay) * g**2
        m = decay * m + (1 - decay) * g
        correction = 1 - decay**t if debias else 1.0
        variance = n / correction - ((m / correction) ** 2 if centered else 0.0)
        yield g / (np.sqrt(variance + eps) if eps_in_sqrt else np.sqrt(variance) + eps)


# Adam: Kingma & Ba 2015, algorithm 1. NAdam: Dozat 2016 with a constant b1.
# AMSGrad: Reddi, Kale & Kumar 2018, algorithm 2.


def adam(
    grads: Arrays,
    b1: float,
    b2: float,
    eps: float,
    eps_root: float = 0.0,
    debias: bool = True,
) -> Updates:
    """u = (m / (1 - b1^t)) / (sqrt(n / (1 - b2^t) + eps_root) + eps)."""
    m: Array | float = 0.0
    n: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        n = b2 * n + (1 - b2) * g**2
        m_hat = m / (1 - b1**t) if debias else m
        n_hat = n / (1 - b2**t) if debias else n
        yield m_hat / (np.sqrt(n_hat + eps_root) + eps)


def nadam(
    grads: Arrays,
    b1: float,
    b2: float,
    eps: float,
    eps_root: float = 0.0,
    debias: bool = True,
) -> Updates:
    """Adam with m_hat = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)."""
    m: Array | float = 0.0
    n: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        n = b2 * n + (1 - b2) * g**2
        if debias:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            n_hat = n / (1 - b2**t)
        else:
            m_hat, n_hat = b1 * m + (1 - b1) * g, n
        yield m_hat / (np.sqrt(n_hat + eps_root) + eps)


def amsgrad(
    grads: Arrays,
    b1: float,
    b2: float,
    eps: float,
    eps_root: float = 0.0,
    debias_mean: bool = True,
    debias_square: bool = True,
    max_of: str = "corrected",
) -> Updates:
    """Adam whose second moment is the largest so far.

    "corrected" (Optax): the maximum of n / (1 - b2^t).
    "raw" (PyTorch): the maximum of n, then over 1 - b2^t.
    With both corrections off the two are the paper's algorithm, and the same.
    """
    m: Array | float = 0.0
    n: Array | float = 0.0
    largest: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        n = b2 * n + (1 - b2) * g**2
        m_hat = m / (1 - b1**t) if debias_mean else m
        correction = 1 - b2**t if debias_square else 1.0
        if max_of == "corrected":
            largest = np.maximum(largest, n / correction)
            n_hat = largest
        else:
            largest = np.maximum(largest, n)
            n_hat = largest / correction
        yield m_hat / (np.sqrt(n_hat + eps_root) + eps)


# What stands before and after a rule.


def decay_weights(updates: Arrays, params: Arrays, rate: float) -> Updates:
    """u + rate p: L2 regularisation before a rule, decoupled weight decay (AdamW) after it.

    Loshchilov & Hutter 2019.
    """
    for u, p in zip(updates, params, strict=True):
        yield u + rate * p


def scale(updates: Arrays, factor: float) -> Updates:
    for u in updates:
        yield factor * u


def descend(updates: Arrays, rate: float | Callable[[int], float]) -> Updates:
    """-rate u; a rate that is a function is asked for the steps 0, 1, 2, ..."""
    for step, u in enumerate(updates):
        yield -(rate(step) if callable(rate) else rate) * u


def clip_values(updates: Arrays, limit: float) -> Updates:
    for u in updates:
        yield np.minimum(np.maximum(u, -limit), limit)


def global_norm(tree: Sequence[Array]) -> float:
    """The Euclidean norm of all elements of all arrays together."""
    return math.sqrt(math.fsum(float(x) ** 2 for array in tree for x in np.ravel(array)))


def clip_global_norm(trees: Iterable[Sequence[Array]], limit: float) -> Iterator[list[Array]]:
    """Pascanu, Mikolov & Bengio 2013: g limit / max(norm(g), limit), for a whole tree."""
    for tree in trees:
        factor = limit / max(global_norm(tree), limit)
        yield [factor * array for array in tree]
