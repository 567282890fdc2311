"""Shell completion: `rlmin completion bash|zsh|fish` prints a script that knows commands, options and presets.

    eval "$(rlmin completion bash)"                    in ~/.bashrc; zsh alike
    rlmin completion fish > ~/.config/fish/completions/rlmin.fish

The script is fixed text: completing a word starts no Python.
"""

from collections.abc import Collection, Mapping, Sequence

from rlmin.checks import check_names
from rlmin.commands.collect import Collect
from rlmin.commands.compare import Compare
from rlmin.commands.convert import Convert
from rlmin.commands.evaluate import Evaluate
from rlmin.commands.export import Export
from rlmin.commands.inspect import Inspect
from rlmin.commands.parse import option_flags
from rlmin.commands.plot import Plot
from rlmin.commands.preset_files import preset_names
from rlmin.commands.train_config import TrainConfig

Words = Mapping[str, Sequence[str]]
"""Command -> what may follow it: options, or names."""


KINDS = {
    "train": TrainConfig,
    "evaluate": Evaluate,
    "collect": Collect,
    "compare": Compare,
    "convert": Convert,
    "export": Export,
    "inspect": Inspect,
    "plot": Plot,
}
"""Command -> class of its settings."""

OF_SEARCHES = ("--trials", "--space", "--seeds", "--objective", "--checks", "--episodes", "--pruner", "--jobs", "--on")
"""Options of `rlmin tune` beside those of `rlmin train`."""


def completion_words(commands: Collection[str]) -> Words:
    """What may follow each of the commands."""
    words: dict[str, list[str]] = {name: option_flags(KINDS[name]) if name in KINDS else [] for name in commands}
    words["train"] += ["--resume", "--dataset", "--seeds", *preset_names()]
    words["tune"] = [*option_flags(TrainConfig), "--dataset", *OF_SEARCHES, *preset_names()]
    names = {"new": ["env", "encoder"], "completion": list(SHELLS), "hub": ["card", "push"]}
    names["list"] = ["presets", "envs", "encoders", "datasets", "zoo"]
    return words | {name: found for name, found in names.items() if name in words}


def write_completion(shell: str, words: Words) -> str:
    """The script for a shell; a ValueError where it is another shell."""
    check_names("shell", [shell], SHELLS)
    return SHELLS[shell](words)


def _bash(words: Words) -> str:
    cases = "\n".join(f'    {command}) words="{" ".join(found)}" ;;' for command, found in words.items())
    return f"""_rlmin() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
}}
complete -o filenames -F _rlmin rlmin
"""


def _zsh(words: Words) -> str:
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(words)


def _fish(words: Words) -> str:
    lines = [f"complete -c rlmin -n __fish_use_subcommand -f -a '{' '.join(words)}'"]
    for command, found in words.items():
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        lines += [f"complete -c rlmin {seen} -l {word[2:]}" for word in found if word.startswith("--")]
        names = [word for word in found if not word.startswith("--")]
        lines += [f"complete -c rlmin {seen} -a '{' '.join(names)}'"] if names else []
    return "\n".join(lines) + "\n"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
