"""The arguments of a command as text: which options they hold, and the words that belong to each."""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

HELP = ("-h", "--help")


def options_of(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Every option and the words up to the next one; words before the first option come with an empty one."""
    option, texts = "", list[str]()
    for word in arguments:
        if not word.startswith("--"):
            texts.append(word)
            continue
        if option or texts:
            yield option, texts
        name, equals, text = word.partition("=")
        option, texts = flag(name[2:]), [text] if equals else []
    if option or texts:
        yield option, texts


def flag(name: str) -> str:
    """The option of a setting: --env-kwargs for env_kwargs."""
    return "--" + name.replace("_", "-")


def values(arguments: Sequence[str], option: str) -> list[str]:
    """The values given for one option, as `--option value` or `--option=value`."""
    after = [value for given, value in pairwise(arguments) if given == option]
    return after + [argument[len(option) + 1 :] for argument in arguments if argument.startswith(f"{option}=")]


def flags(arguments: Sequence[str]) -> list[str]:
    """The options among the arguments, as --with-dashes; a value may follow after "="."""
    return [flag(argument.split("=")[0][2:]) for argument in arguments if argument.startswith("--")]


def split_options(arguments: Sequence[str], options: Collection[str]) -> tuple[list[str], list[str]]:
    """The arguments that belong to these options, and the other arguments."""
    chosen, others = list[str](), list[str]()
    if not set(flags(arguments)) & set(options):
        return chosen, list(arguments)
    for option, texts in options_of(arguments):
        (chosen if option in options else others).extend([option, *texts] if option else texts)
    return chosen, others
