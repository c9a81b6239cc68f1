"""Recipes: named chains without maths of their own."""

from gradtx.core.exports import export_names as _export_names
from gradtx.optimizers.adadelta import *
from gradtx.optimizers.adagrad import *
from gradtx.optimizers.adam import *
from gradtx.optimizers.adam_mini import *
from gradtx.optimizers.adamax import *
from gradtx.optimizers.adan import *
from gradtx.optimizers.ademamix import *
from gradtx.optimizers.adopt import *
from gradtx.optimizers.belief import *
from gradtx.optimizers.came import *
from gradtx.optimizers.cocob import *
from gradtx.optimizers.dog import *
from gradtx.optimizers.factored import *
from gradtx.optimizers.galore import *
from gradtx.optimizers.kron import *
from gradtx.optimizers.laprop import *
from gradtx.optimizers.lbfgs import *
from gradtx.optimizers.madgrad import *
from gradtx.optimizers.mars import *
from gradtx.optimizers.muon import *
from gradtx.optimizers.noise import *
from gradtx.optimizers.normuon import *
from gradtx.optimizers.novograd import *
from gradtx.optimizers.optimistic import *
from gradtx.optimizers.polyak import *
from gradtx.optimizers.privacy import *
from gradtx.optimizers.radam import *
from gradtx.optimizers.rmsprop import *
from gradtx.optimizers.rprop import *
from gradtx.optimizers.schedule_free import *
from gradtx.optimizers.scion import *
from gradtx.optimizers.sgd import *
from gradtx.optimizers.shampoo import *
from gradtx.optimizers.sign import *
from gradtx.optimizers.soap import *
from gradtx.optimizers.sophia import *
from gradtx.optimizers.stable_adam import *
from gradtx.optimizers.trust_ratio import *
from gradtx.optimizers.yogi import *

_export_names(globals())
