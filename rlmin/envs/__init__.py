"""The library's own environments, registered by id; each game's rules are the docstring of its file."""

import gymnasium as gym


def register() -> None:
    """Register every environment of the library with gymnasium; calling it twice does no harm."""
    if "rlmin/TMaze-v0" in gym.registry:
        return
    for name, active in (("TMaze", False), ("TMazeActive", True)):
        gym.register(
            f"rlmin/{name}-v0",
            entry_point="rlmin.envs.t_maze:TMazeEnv",
            vector_entry_point="rlmin.envs.t_maze:TMaze",
            kwargs={"active": active},
        )
    gym.register("rlmin/MiniGridMemory-v0", entry_point="rlmin.envs.minigrid_memory:MiniGridMemory")
    gym.register(
        "rlmin/CartPoleNoVel-v1",
        entry_point="rlmin.envs.no_velocity:CartPoleNoVel",
        max_episode_steps=500,
        reward_threshold=475.0,
    )
    gym.register("rlmin/PendulumNoVel-v1", entry_point="rlmin.envs.no_velocity:PendulumNoVel", max_episode_steps=200)
