"""Runs on the Hugging Face hub: push a run as a model with a card, and load one from there.

Weights are transferred as safetensors, settings as YAML: no file is a pickle or a program.
"""

from pathlib import Path
from typing import Any

import torch

from rlmin.agents.agent import Agent
from rlmin.agents.load import load
from rlmin.checks import require
from rlmin.interop.model_card import CARD, LOCAL, write_card
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, derive_files, read_newest
from rlmin.runs.hub_snapshot import download
from rlmin.settings.boundary import checked

FILES = (CARD, CONFIG, POLICY, "metrics.csv", "curve.png")
"""The files of a run that are pushed if they exist, with LEARNER on request."""


@checked
def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    with_learner: bool = False,
    message: str = "A run of rlmin",
    trust: bool = False,
) -> str:
    """Push a run. The repository is created if necessary; files of an earlier push that this run lacks are removed.

    Args:
        folder: the run. Without a card, it gets one with scores: see `rlmin.interop.model_card.write_card`.
        repo_id: "user/name".
        private: whether a new repository is private.
        with_learner: whether to push the learner's state too, which further training needs.
        message: commit message.
        trust: see `rlmin.load`; used for the card.

    Returns:
        the address of the repository.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: the folder is not a run, the id is invalid, or nobody is logged in; nothing has been pushed.
        OSError: the hub refuses, or cannot be reached.
    """
    hub, errors = (require(name, extra="hub") for name in ("huggingface_hub", "huggingface_hub.errors"))
    folder = Path(folder)
    read_newest(folder)  # raises for a damaged run
    names = [*FILES, *([LEARNER] if with_learner else [])]
    if with_learner and not (folder / LEARNER).exists():
        raise ValueError(f"{folder}: has no {LEARNER} to push")
    if not (folder / CARD).exists():
        write_card(folder, trust=trust)
    contents = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    contents |= derive_files(folder)  # a kill between two files of a save leaves older ones behind
    contents[CARD] = contents[CARD].replace(LOCAL.encode(), f'rlmin.load("hf://{repo_id}")'.encode())
    api = hub.HfApi(library_name="rlmin")
    try:
        place = api.create_repo(repo_id, private=private, exist_ok=True)
        old = set(api.list_repo_files(repo_id)) & {*FILES, LEARNER} - contents.keys()
        changes = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        changes += [hub.CommitOperationDelete(name) for name in sorted(old)]  # otherwise an old learner would be loaded
        api.create_commit(repo_id, changes, commit_message=message)
    except errors.HTTPError as error:  # httpx's errors, which are not OSErrors if nothing is reached
        raise OSError(f"{repo_id}: {error}") from error
    return str(place)


@checked
def load_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    env: Any = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
) -> Agent:
    """The agent of a run on the hub; `rlmin.load("hf://user/name@revision")` is the same.

    Args:
        repo_id: "user/name".
        revision: a branch, a tag or a commit; None: the newest.
        env, device, trust: see `rlmin.load`.

    Raises:
        ImportError, ValueError, ConnectionError: see `rlmin.runs.hub_snapshot.fetch` and `rlmin.load`.
    """
    return load(download(repo_id, revision), env=env, device=device, trust=trust)
