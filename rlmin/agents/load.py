"""Loading an agent from its folder."""

from pathlib import Path
from typing import Any

import torch

from rlmin.agents.agent import AGENTS, Agent
from rlmin.agents.restore import restore
from rlmin.distributed import ALONE, Ranks
from rlmin.settings.boundary import checked


@checked
def load(
    folder: str | Path,
    *,
    env: Any = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
    ranks: Ranks = ALONE,
) -> Agent:
    """The agent saved in `folder`, of the algorithm that the folder names, ready to act or to continue learning.

    Args:
        folder: a run folder, where `agent.save` wrote; "hf://user/name" or "hf://user/name@revision" on the
            Hugging Face hub; or "zoo:name", a policy that comes with rlmin (`rlmin list zoo`).
        env: environment for further training, with new episodes. None: the environment is made from its id once it is
            needed. `agent.resume(folder)` also restores the state of an environment that has one.
        device: device of the weights.
        trust: let the run import the module that its environment id names, if it names one: see `rlmin.files.trust`.
        ranks: processes that go on with it together, see `rlmin.distributed.join`; each of them loads it.

    Raises:
        ValueError: the folder is not a run, is incomplete, damaged, edited or of another version; or spaces of `env`
            differ from the policy's; see `rlmin.runs.hub_snapshot.fetch` for errors of the hub.
    """
    return restore(AGENTS, folder, env=env, device=device, trust=trust, ranks=ranks)
