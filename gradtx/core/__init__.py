"""The plumbing: everything about an optimizer that is not its maths, written once.

A transformation is a value (`value`): the function that defines it, whose signature is read once
(`definition`), and its arguments, each checked by its kind (`hyperparameters`). The function
returns a rule (`rule`): the maths of one array or of one tree, which asks for its inputs by name.

Five words recur. A *link* is one rule and the masks it is under; the links of a composite, in
order, are its *line*; neighbouring links that run together are a *stage*; a *selection* is one
boolean per leaf; a *row* is the state of one leaf. The journey of one update:

1.  `transformation`  `tx.update(grads, state, params)`. A composite knows its links and how its
                      state (`state`) is split among them: a chain (`combinators/chain.py`), a mask
                      around one, and a recipe (`recipe`), whose body is a chain.
2.  `run`             Splits the state and runs the line stage by stage: neighbouring rules of one
                      array run together, a rule of trees runs alone. Links and stages are found
                      once for each transformation, and kept.
3.  `flat_updates`    Flattens the gradients and params, once for the whole line (`leaves`), checks
                      them, and decides the dtypes (`dtypes`); masks (`mask`) select leaves.
4.  `per_leaf`        Runs a stage of rules of one array, by `_run` of its first link: evaluates
                      schedules, takes the count out of the state and increments it (`ruled`,
                      `counts`), runs `precompute`, and then, for each leaf,
5.  `leaf_body`       one jitted body: it calls the functions of the definitions again with the
                      numbers of this step, which may be traced, and applies their rules in turn, in
                      float32 or wider, to the leaf's gradient, param and row (`leaf_states`). It
                      rounds if this is the last stage. A rule reads the count and the bias of
                      running means from `step`.
6.  `per_tree`        Runs a rule of trees on the tree of updates; leaves without an update are
                      left out (`absent`). A wrapper is such a rule: it is given its inner
                      transformation, bound to this step (`inner`), whose own update starts again
                      at 1 and is not rounded.
7.  `run`             Joins the new states. The updates leave `flat_updates` as a tree, rounded to
                      the dtypes of the params if they were not yet, and `apply` adds them. In
                      `training_step` both are one call: a wrapper that hands on its inner updates
                      may apply them itself (`Inner.emit`).

The other files:

-   The classes of values are in `per_leaf` and `per_tree` (both built on `ruled`) and `recipe`, and
    `decorators` turns functions into definitions of them. `kinship` makes a transformation an
    instance of Optax's class.
-   Values as text and data: `printing` prints them, `reading` reads back what they print, `config`
    writes them as plain data, and `known` finds users' definitions by name. `documentation` builds
    what `help` shows for a definition; `arguments` describes the arguments that many share.
-   Hyperparameters that depend on the step: `schedule` and `arithmetic`.
-   Rules share formulas in `numerics` and `norms`, and `batches` makes one call for many leaves.
-   Between links: `place` checks which come first or last, `problem` translates the arguments that
    describe the objective for a wrapper's inner transformation, `skipping` tells from states which
    calls took a step, and `origin` recognises the states of other libraries.
-   Steering XLA: `finite` (skipped steps), `holding` (occasional steps), `opaque` (scalars that it
    must not constant-fold), `launches` (small leaves, many at a time on a GPU). `elementwise` finds
    the parts of a traced function that may run on pieces of arrays.
-   `meshes`, for many devices, has a guide of its own.
-   `exports` lists a package's public names; `renamed` keeps last release's names working.
"""

from gradtx.core import arithmetic as _arithmetic  # noqa: F401  (the operators of schedules)
