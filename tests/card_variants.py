"""The card games and their variants, by name."""

import importlib

from rlmin.envs.autoencode import Autoencode
from rlmin.envs.concentration import Concentration
from rlmin.envs.count_recall import CountRecall
from rlmin.envs.higher_lower import HigherLower
from rlmin.envs.repeat_first import RepeatFirst
from rlmin.envs.repeat_previous import RepeatPrevious
from rlmin.envs.tensor_env import TensorEnv, Variant

GAMES: dict[str, type[TensorEnv]] = {
    "repeat_first": RepeatFirst,
    "repeat_previous": RepeatPrevious,
    "autoencode": Autoencode,
    "count_recall": CountRecall,
    "higher_lower": HigherLower,
    "concentration": Concentration,
}
VARIANTS: dict[str, tuple[str, Variant]] = {
    id.removesuffix("-v0"): (file, variant)
    for file in GAMES
    for id, variant in importlib.import_module(f"rlmin.envs.{file}").VARIANTS.items()
}
