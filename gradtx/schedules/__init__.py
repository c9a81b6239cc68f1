"""Schedules: functions of the step that are values. Any hyperparameter takes one."""

from gradtx.core.exports import export_names as _export_names
from gradtx.schedules.cosine import *
from gradtx.schedules.piecewise import *
from gradtx.schedules.polynomial import *
from gradtx.schedules.training import *

_export_names(globals())
