"""Shell completion: `rlmin completion bash|zsh|fish` prints a script that knows commands, options and presets.

    eval "$(rlmin completion bash)"                    in ~/.bashrc; zsh alike
    rlmin completion fish > ~/.config/fish/completions/rlmin.fish

The script is fixed text: completing a word starts no Python.
"""

from collections.abc import Collection, Mapping, Sequence

from rlmin.checks import check_names
from rlmin.commands.early_answers import list_flags
from rlmin.commands.preset_files import preset_names
from rlmin.commands.table import TABLE

Words = Mapping[str, Sequence[str]]
"""Command -> what may follow it: options, or names."""


def completion_words(commands: Collection[str]) -> Words:
    """What may follow each of the commands."""
    words = {name: list_flags(name) if name in TABLE else [] for name in commands}
    words["tune"] += list_flags("train")
    for name, more in (("train", ("--resume", "--dataset", "--seeds")), ("tune", ("--dataset",))):
        words[name] += [*more, *preset_names()]
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
