"""Where arrays lie on a mesh, and the same numbers wherever they do."""

from gradtx.core.exports import export_names as _export_names
from gradtx.sharding.on_shards import *

_export_names(globals())
