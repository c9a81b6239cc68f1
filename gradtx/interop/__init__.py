"""To and from Optax."""

from gradtx.core.exports import gather as _gather
from gradtx.interop.optax import *

_gather(globals())
