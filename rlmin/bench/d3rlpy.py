"""d3rlpy's DecisionTransformer at the sizes of rlmin's agents in the benchmarks.

One of its defaults is changed: dropout is off, as in rlmin, so that neither side draws masks.
"""

from collections.abc import Sequence
from typing import Any

from rlmin.bench.peers import need
from rlmin.data import Episode


def make_transformer(
    observation: int, action: int, *, width: int, layers: int, context: int, length: int, device: str
) -> Any:
    """A DecisionTransformer for vectors, with one head and one linear embedding of the observation, not yet trained.

    Args:
        observation, action: sizes of the two vectors.
        width: of the embeddings; its MLPs are four times as wide.
        layers: blocks.
        context: K, number of steps in view, three tokens each.
        length: of the longest episode; each of its steps has an embedding of its own.
        device: "cpu" or "cuda", ...

    Raises:
        Missing: see `rlmin.bench.peers.need`.
    """
    algos, models = need("d3rlpy.algos"), need("d3rlpy.models")
    config = algos.DecisionTransformerConfig(
        context_size=context,
        max_timestep=length,
        num_layers=layers,
        encoder_factory=models.VectorEncoderFactory([width], exclude_last_activation=True),
        attn_dropout=0.0,
        resid_dropout=0.0,
        embed_dropout=0.0,
    )
    algorithm = config.create(device=False if device == "cpu" else device)
    algorithm.create_impl((observation,), action)
    return algorithm


def make_replay_buffer(episodes: Sequence[Episode], *, choices: int | None = None) -> Any:
    """The episodes as its `fit` samples them.

    Args:
        episodes: observations are vectors; actions vectors, or numbers in [0, choices).
        choices: of a discrete action; None: actions are vectors.

    Raises:
        Missing: see `rlmin.bench.peers.need`.
    """
    data, spaces = need("d3rlpy.dataset"), need("d3rlpy.constants").ActionSpace
    theirs = [
        data.Episode(
            one.observations[:-1],
            one.actions if choices is None else one.actions[:, None],
            one.rewards[:, None],
            one.terminated,
        )
        for one in episodes
    ]
    size = theirs[0].actions.shape[1] if choices is None else choices
    kind = {"action_space": spaces.CONTINUOUS if choices is None else spaces.DISCRETE, "action_size": size}
    options = {
        f"{part}_signature": getattr(theirs[0], f"{part}_signature") for part in ("observation", "action", "reward")
    }
    return data.ReplayBuffer(data.InfiniteBuffer(), episodes=theirs, **kind, **options)
