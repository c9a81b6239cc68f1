"""To and from Optax."""

from gradtx.core.exports import export_names as _export_names
from gradtx.interop.optax import *

_export_names(globals())
