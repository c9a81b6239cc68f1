"""Where states lie on a mesh of devices.

`state_shardings` says where the state of any optimizer lies, and `init` makes it there.
"""

from gradtx.core.exports import export_names as _export_names
from gradtx.sharding.sizes import *
from gradtx.sharding.spread import *
from gradtx.sharding.states import *

_export_names(globals())
