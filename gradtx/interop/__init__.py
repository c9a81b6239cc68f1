"""To and from Optax, and from one state to another."""

from gradtx.core.exports import export_names as _export_names
from gradtx.interop.migrate import *
from gradtx.interop.optax import *
from gradtx.interop.report import *

_export_names(globals())
