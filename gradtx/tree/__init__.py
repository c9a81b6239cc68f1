"""Trees of arrays: arithmetic, moments, dtypes, random numbers, and values found by name."""

from gradtx.core.exports import export_names as _export_names
from gradtx.tree.access import *
from gradtx.tree.arithmetic import *
from gradtx.tree.casting import *
from gradtx.tree.moments import *
from gradtx.tree.random import *

_export_names(globals())
