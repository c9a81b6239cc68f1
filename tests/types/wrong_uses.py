"""Uses that a type checker must flag. At run time each of them raises, too.

test_types.py runs them one by one; the file itself is never run.
"""

from __future__ import annotations

import gradtx
from gradtx import GradientTransformation, Schedule


def without_step() -> float:
    return 0.1


tx: GradientTransformation = gradtx.adamw(0.1)
schedule: Schedule = gradtx.cosine_decay_schedule(0.1, 100)

# -- flagged by every checker --

gradtx.adamw("fast")
gradtx.adamw(0.1, b1="0.9")
gradtx.adamw(None)
gradtx.adamw([0.1])
gradtx.adamw(0.1, b3=0.9)
gradtx.adamw()
gradtx.sgd(0.1, momentum="0.9")
gradtx.adamw(0.1, nesterov="yes")
gradtx.adamw(0.1, mu_dtype=32)
gradtx.cosine_decay_schedule("0.1", 100)
gradtx.cosine_decay_schedule(0.1, "100")
gradtx.join_schedules(schedule, [10])
gradtx.join_schedules([schedule, schedule], ["10"])
gradtx.piecewise_constant_schedule(0.1, {10: "0.5"})
tx.learning_rate = 0.5
gradtx.add_noise(0.1, 0.55, seed="1")
gradtx.add_noise(0.1, 0.55, 1.5)
gradtx.store(tx, "int9")
gradtx.store(tx, {"nu": "float64"})
gradtx.store("adam", "int8")
gradtx.scale_by_lion(mode="soft")
gradtx.amsgrad(0.1, max_of="row")
gradtx.polyak_sgd(variant="spS")
gradtx.chain(tx, "clip")
gradtx.chain(gradtx.adamw)
gradtx.named_chain(tx)
gradtx.named_chain((1, tx))
gradtx.partition({"kernel": "adam"})
gradtx.masked(0.1, "kernel")
gradtx.accumulate(tx, "4")
gradtx.accumulate(0.1, 4)
gradtx.galore(0.1, rank=2.5)
schedule + "0.5"
schedule.clip("0.1")
schedule.shift("10")
tx.update({})
tx.init()

# -- missed by mypy, to which a value has attributes of every name, for it has __getattr__ --

gradtx.adamw(tx)
gradtx.cosine_decay_schedule(0.1, schedule)
gradtx.chain(schedule)
"0.5" * schedule
schedule + tx
schedule.shift(schedule)
