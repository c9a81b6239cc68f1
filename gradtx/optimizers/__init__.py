"""Recipes: named chains without maths of their own."""

from gradtx.optimizers.adagrad import adagrad
from gradtx.optimizers.adam import adam, adamw, amsgrad, nadam, nadamw
from gradtx.optimizers.rmsprop import rmsprop
from gradtx.optimizers.sgd import maximize, sgd

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "amsgrad",
    "maximize",
    "nadam",
    "nadamw",
    "rmsprop",
    "sgd",
]
