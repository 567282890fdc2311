"""Any environment with its rewards in another unit: the task is the same, so an agent should learn the same policy.

    rlmin/Rescaled-v0   game=ID, scale=1.0, offset=0.0, steps=None;   reward = scale * (reward of the game) + offset

Further arguments are the game's own. An offset changes the task if the policy decides when an episode ends; it does not
if all episodes have the same length. `gym.make` keeps an argument `max_episode_steps` for itself, and can only shorten
episodes with it; `steps` is the limit of the game inside.
"""

from typing import Any, SupportsFloat

import gymnasium as gym


class Rescaled(gym.Wrapper[Any, Any, Any, Any]):
    """A game whose rewards are `scale` times as large, plus `offset`."""

    def __init__(
        self,
        *,
        game: str = "CartPole-v1",
        scale: float = 1.0,
        offset: float = 0.0,
        steps: int | None = None,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Make the game.

        Args:
            game: id of an environment that gymnasium knows.
            scale, offset: see the module.
            steps: most steps of an episode; None: as the game is registered.
            render_mode: of the game.
            kwargs: of the game.
        """
        super().__init__(gym.make(game, max_episode_steps=steps, render_mode=render_mode, **kwargs))
        self.scale, self.offset = scale, offset

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, self.scale * float(reward) + self.offset, terminated, truncated, info


def make_rescaled(**kwargs: Any) -> Rescaled:
    """Make the environment; gymnasium before 1.3 asks a class for metadata that a wrapper does not have."""
    return Rescaled(**kwargs)
