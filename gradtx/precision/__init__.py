"""How parameters are rounded and how state is stored."""

from gradtx.core.exports import export_names as _export_names
from gradtx.precision.formats import *
from gradtx.precision.rounding import *
from gradtx.precision.store import *
from gradtx.precision.stored import *

_export_names(globals())
