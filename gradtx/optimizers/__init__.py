"""Recipes: named chains without maths of their own."""

from gradtx.optimizers.adadelta import adadelta
from gradtx.optimizers.adagrad import adagrad
from gradtx.optimizers.adam import adam, adamw, amsgrad, nadam, nadamw
from gradtx.optimizers.adamax import adamax, adamaxw
from gradtx.optimizers.adan import adan
from gradtx.optimizers.ademamix import ademamix, simplified_ademamix
from gradtx.optimizers.adopt import adopt
from gradtx.optimizers.belief import acprop, adabelief
from gradtx.optimizers.cocob import cocob
from gradtx.optimizers.dog import dog, dowg
from gradtx.optimizers.factored import adafactor, sm3
from gradtx.optimizers.galore import galore
from gradtx.optimizers.lbfgs import lbfgs
from gradtx.optimizers.madgrad import madgrad
from gradtx.optimizers.muon import muon
from gradtx.optimizers.noise import noisy_sgd
from gradtx.optimizers.novograd import novograd
from gradtx.optimizers.optimistic import (
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
)
from gradtx.optimizers.polyak import polyak_sgd
from gradtx.optimizers.privacy import dpsgd
from gradtx.optimizers.radam import radam
from gradtx.optimizers.rmsprop import rmsprop
from gradtx.optimizers.rprop import rprop
from gradtx.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from gradtx.optimizers.sgd import sgd
from gradtx.optimizers.sign import lion, sign_sgd, signum
from gradtx.optimizers.sophia import sophia
from gradtx.optimizers.trust_ratio import fromage, lamb, lars
from gradtx.optimizers.yogi import yogi

__all__ = [
    "acprop",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "cocob",
    "dog",
    "dowg",
    "dpsgd",
    "fromage",
    "galore",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "madgrad",
    "muon",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "novograd",
    "optimistic_adam",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "polyak_sgd",
    "radam",
    "rmsprop",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "sign_sgd",
    "signum",
    "simplified_ademamix",
    "sm3",
    "sophia",
    "yogi",
]
