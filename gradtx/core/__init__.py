"""The plumbing, written once: values, rules, trees, dtypes, errors."""

from gradtx.core import arithmetic as _arithmetic  # noqa: F401  (the operators of schedules)
