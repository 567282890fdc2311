"""The library's own environments, registered by id on import; each game's rules are the docstring of its file."""

import importlib

import gymnasium as gym

GAMES = {
    "t_maze": "TMaze",
    "endless_t_maze": "EndlessTMaze",
    "repeat_first": "RepeatFirst",
    "repeat_previous": "RepeatPrevious",
    "autoencode": "Autoencode",
    "count_recall": "CountRecall",
    "higher_lower": "HigherLower",
    "concentration": "Concentration",
    "parity": "Parity",
    "delayed_match": "DelayedMatch",
    "copy_delay": "CopyDelay",
    "associative_recall": "AssociativeRecall",
    "passkey": "Passkey",
    "modular_count": "ModularCount",
    "battleship": "Battleship",
    "minesweeper": "MineSweeper",
    "multiarmed_bandit": "MultiarmedBandit",
    "cart_pole": "CartPole",
    "pendulum": "Pendulum",
    "grid_memory": "GridMemory",
}
"""File -> class of the games that step B rows at once; each file's VARIANTS are the ids, its {class}Env plays one."""


def register() -> None:
    """Register every environment of the library with gymnasium; calling it twice does no harm."""
    if "rlmin/TMaze-v0" in gym.registry:
        return
    for file, name in GAMES.items():
        module = f"rlmin.envs.{file}"
        for id, variant in importlib.import_module(module).VARIANTS.items():
            gym.register(
                f"rlmin/{id}",
                entry_point=f"{module}:{name}Env",
                vector_entry_point=f"{module}:{name}",
                kwargs=variant.options,
            )
    gym.register("rlmin/MiniGridMemory-v0", entry_point="rlmin.envs.minigrid_memory:MiniGridMemory")
    gym.register(
        "rlmin/CartPoleNoVel-v1",
        entry_point="rlmin.envs.no_velocity:CartPoleNoVel",
        max_episode_steps=500,
        reward_threshold=475.0,
    )
    gym.register("rlmin/PendulumNoVel-v1", entry_point="rlmin.envs.no_velocity:PendulumNoVel", max_episode_steps=200)
    gym.register("rlmin/Rescaled-v0", entry_point="rlmin.envs.rescaled:make_rescaled")


register()
