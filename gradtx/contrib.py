"""The names of `optax.contrib` for code written for Optax: here they are names like any other."""

from gradtx.combinators import *
from gradtx.core.exports import export_names as _export_names
from gradtx.interop.names import *
from gradtx.optimizers import *
from gradtx.transforms import *

_export_names(globals())
