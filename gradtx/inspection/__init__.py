"""Looking at transformations."""

from gradtx.core.exports import gather as _gather
from gradtx.inspection.describe import *
from gradtx.inspection.state_size import *

_gather(globals())
