"""Looking at transformations, and reading them from text."""

from gradtx.core.exports import export_names as _export_names
from gradtx.inspection.describe import *
from gradtx.inspection.hyperparams import *
from gradtx.inspection.reading import *
from gradtx.inspection.report import *
from gradtx.inspection.state_size import *

_export_names(globals())
