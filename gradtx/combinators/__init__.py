"""Transformations of transformations."""

from gradtx.combinators.accumulate import *
from gradtx.combinators.averaged import *
from gradtx.combinators.cautious import *
from gradtx.combinators.chain import *
from gradtx.combinators.conditional import *
from gradtx.combinators.freeze import *
from gradtx.combinators.hyperball import *
from gradtx.combinators.inject import *
from gradtx.combinators.layerwise import *
from gradtx.combinators.layouts import *
from gradtx.combinators.lookahead import *
from gradtx.combinators.loss_scale import *
from gradtx.combinators.masked import *
from gradtx.combinators.maximize import *
from gradtx.combinators.mechanic import *
from gradtx.combinators.multi_steps import *
from gradtx.combinators.partition import *
from gradtx.combinators.sam import *
from gradtx.combinators.schedule_free import *
from gradtx.combinators.split_complex import *
from gradtx.combinators.stateless import *
from gradtx.core.exports import export_names as _export_names

_export_names(globals())
