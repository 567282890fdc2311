"""Runs by their address: on the Hugging Face hub, or of the zoo that comes with rlmin.

From the hub, rlmin downloads only the files of a run that it reads. None of them can execute code.
"""

import re
from pathlib import Path, PurePosixPath

from rlmin.checks import require
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY
from rlmin.runs.policy_zoo import PREFIX, zoo_folder

PICKLED = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".zip"}
"""Endings of files that are pickles or may contain one."""

ADDRESS = re.compile(r"hf:/+(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>.+))?")
"""hf://user/name or hf://user/name@revision; a Path turns the two slashes into one."""


def is_address(place: str | Path) -> bool:
    """Whether this is an address, "hf://user/name" or "zoo:name", not a local folder."""
    return _text(place).startswith(("hf:/", PREFIX))


def fetch(place: str | Path) -> Path:
    """The local folder of a run on the hub or of the zoo.

    Args:
        place: "hf://user/name", or "hf://user/name@revision": a branch, a tag or a commit; or "zoo:name".

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: no such address, repository or revision, or no run of rlmin in it.
        ConnectionError: the hub cannot be reached, and there is no local copy.
    """
    if _text(place).startswith(PREFIX):
        return zoo_folder(_text(place))
    found = ADDRESS.fullmatch(_text(place))
    if found is None:
        raise ValueError(f"{place}: expected hf://USER/NAME or hf://USER/NAME@REVISION")
    return download(found["repo"], found["revision"])


def download(repo_id: str, revision: str | None = None) -> Path:
    """As `fetch`, given a repository's id and a revision."""
    hub, errors = (require(name, extra="hub") for name in ("huggingface_hub", "huggingface_hub.errors"))
    place = f"hf://{repo_id}" + (f"@{revision}" if revision else "")
    try:
        folder = Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=[CONFIG, POLICY, LEARNER]))
        if not (folder / POLICY).exists():
            raise ValueError(f"{place}: {_describe_content(hub.HfApi().list_repo_files(repo_id, revision=revision))}")
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ValueError(f"{place}: not found on the hub, or not yours to see ({_first_line(error)})") from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(f"{place}: not reached, and not brought here before ({_first_line(error)})") from error
    return folder


def _text(place: str | Path) -> str:
    """The address with forward slashes, one less than typed: a Path on Windows has backslashes."""
    return place if isinstance(place, str) else place.as_posix()


def _describe_content(names: list[str]) -> str:
    """What a repository without a run contains, for the error message."""
    pickles = [name for name in names if PurePosixPath(name).suffix in PICKLED]
    if pickles:
        return (
            f"no run of rlmin, expected {POLICY}; {pickles[0]} is a pickle or may hold one, which could execute code "
            "when it is loaded: rlmin reads none"
        )
    return f"no run of rlmin, expected {POLICY} in it, found {', '.join(names[:5]) or 'nothing'}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
