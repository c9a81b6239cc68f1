"""The plumbing: everything that is not the maths of an optimizer, written once.

A transformation is a value (`value`): the function that defines it, read once (`definition`), and
its arguments, each checked by its kind (`kinds`). The function returns a rule (`rule`): the maths
of one array, or of one tree, which asks by name for what it needs. The journey of one update:

1.  `transformation`  `tx.update(grads, state, params)`: a composite (a chain, a recipe, a mask) is
                      a line of links, each of them one rule on some of the leaves.
2.  `run`             The state is laid along the line, and the line is cut into stages:
                      neighbouring rules of one array run together, a rule of trees runs alone.
3.  `flat_updates`    The gradients and params are flattened, once for the whole line (`leaves`),
                      checked, and held in their own dtypes; masks (`mask`) select among them.
4.  `per_leaf`        A stage of rules of one array: schedules are evaluated, the count goes up
                      (`counts`), `precompute` runs, and for each leaf
5.  `leaf_body`       one jitted body applies the rules one after the other, in float32 or wider
                      (`dtypes`), to the leaf's gradient, param and state (`leaf_states`); a rule
                      sees how far the run is in `step`.
6.  `per_tree`        A rule of trees sees the tree of all updates; leaves without one are absent
                      (`absent`). A wrapper is such a rule, with the transformation inside of it
                      bound to this step (`inner`): it runs from 1 again, and rounds nothing.
7.  `run`             The new states are joined, and the updates leave (`flat_updates`), rounded
                      once, to the dtypes of the params. `apply` adds them.

Beside the way: `ruled` and `recipe` are the classes of values that rules and compositions make,
`decorators` turns a function into their definition; `place` says which links come first or last;
`schedule` and `arithmetic` are numbers that depend on the step; `state` are the annotations of
states, `origin` tells states of any library; `problem` is the objective as a wrapper shows it to
what is inside; `numerics` and `norms` are functions that formulas share, `batches` one call for
many leaves; `finite`, `holding` and `opaque` are about what XLA makes of steps that are skipped,
taken now and then, and of numbers that it is not to know. `exports` says what a package makes
public, `renamed` what had another name in the last release.
"""

from gradtx.core import arithmetic as _arithmetic  # noqa: F401  (the operators of schedules)
