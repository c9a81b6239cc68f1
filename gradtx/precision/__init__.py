"""How parameters are rounded and how state is stored."""

from gradtx.core.exports import gather as _gather
from gradtx.precision.formats import *
from gradtx.precision.rounding import *
from gradtx.precision.store import *

_gather(globals())
