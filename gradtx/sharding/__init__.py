"""Where states lie on a mesh of devices.

`state_shardings` says where the state of any optimizer lies, and `init` makes it there.
"""

from gradtx.core.exports import export_names as _export_names
from gradtx.sharding.planning import *
from gradtx.sharding.sizes import *
from gradtx.sharding.states import *
from gradtx.sharding.traffic import *
from gradtx.sharding.zero import *

_export_names(globals())
