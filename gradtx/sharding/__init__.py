"""Optimizers on many devices: where their states lie, and the same numbers wherever arrays lie.

`state_shardings` says where the state of any optimizer lies, and `init` makes it there; `zero`
spreads it further; `on_mesh` tells an optimizer how parameters lie; `on_shards` is for
`jax.shard_map`; `plan` says what a step needs on devices that are not there yet.
"""

from gradtx.core.exports import export_names as _export_names
from gradtx.sharding import models as models
from gradtx.sharding.on_mesh import *
from gradtx.sharding.on_shards import *
from gradtx.sharding.planning import *
from gradtx.sharding.sizes import *
from gradtx.sharding.spread import *
from gradtx.sharding.states import *
from gradtx.sharding.traffic import *

_export_names(globals(), "models")
