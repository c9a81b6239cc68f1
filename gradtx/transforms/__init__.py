"""The maths: rules for single arrays and for whole trees, one family per file."""

from gradtx.core.exports import export_names as _export_names
from gradtx.transforms.adadelta import *
from gradtx.transforms.adam import *
from gradtx.transforms.adam_mini import *
from gradtx.transforms.adamax import *
from gradtx.transforms.adan import *
from gradtx.transforms.ademamix import *
from gradtx.transforms.adopt import *
from gradtx.transforms.asgd import *
from gradtx.transforms.belief import *
from gradtx.transforms.came import *
from gradtx.transforms.clipping import *
from gradtx.transforms.cocob import *
from gradtx.transforms.d_adaptation import *
from gradtx.transforms.decay import *
from gradtx.transforms.distance import *
from gradtx.transforms.factored import *
from gradtx.transforms.galore import *
from gradtx.transforms.kron import *
from gradtx.transforms.laprop import *
from gradtx.transforms.lbfgs import *
from gradtx.transforms.linesearch import *
from gradtx.transforms.lmo import *
from gradtx.transforms.madgrad import *
from gradtx.transforms.mars import *
from gradtx.transforms.matrix_axes import *
from gradtx.transforms.momentum import *
from gradtx.transforms.monitoring import *
from gradtx.transforms.nadam import *
from gradtx.transforms.neuron_norm import *
from gradtx.transforms.noise import *
from gradtx.transforms.normalizing import *
from gradtx.transforms.novograd import *
from gradtx.transforms.optimistic import *
from gradtx.transforms.orthogonal import *
from gradtx.transforms.plateau import *
from gradtx.transforms.polyak import *
from gradtx.transforms.privacy import *
from gradtx.transforms.radam import *
from gradtx.transforms.rprop import *
from gradtx.transforms.scaling import *
from gradtx.transforms.second_moment import *
from gradtx.transforms.shampoo import *
from gradtx.transforms.sign import *
from gradtx.transforms.sm3 import *
from gradtx.transforms.soap import *
from gradtx.transforms.sophia import *
from gradtx.transforms.stable_adam import *
from gradtx.transforms.trust_ratio import *
from gradtx.transforms.yogi import *
from gradtx.transforms.zoom import *

_export_names(globals())
