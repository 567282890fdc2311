"""The documentation: whatever it tells a reader to type is run as it stands, and every link leads somewhere.

A page is a Markdown file in docs/. Its fenced blocks, in their order and in one empty folder:

    ```python    is run; the blocks of a page share one namespace. No word may follow `python`. A block that begins with
                 the name of a file, as `# lamp.py`, becomes that file and is not run.
    ```console   each line `$ rlmin ...` is run by rlmin.cli.main, and the zoo's by ZOO; one that ends in a backslash
                 goes on. Other `$` lines must begin with one of OTHERS and are not run (a script of examples/ has a
                 test of its own). Lines without `$` are what the command printed, and are not compared.
    ```text      and anything else is not run.

Where a reader wants a longer run than a test, the page says what a test replaces, in a comment on a line of its own:

    <!-- test: --total-timesteps 500_000 -> --total-timesteps 2_000 -->

It holds for every block below it, and has to be found in one of them.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from rlmin.cli import main
from rlmin.settings import describe_settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

SLOW = {
    "results/learning.md": "a suite of cells, each trained in a process of its own",
    "tutorials/environment-to-figure.md": "four runs and a report",
    "howto/gymnasium.md": "a film is made",
    "howto/tuning.md": "a search",
    "howto/many-runs.md": "seeds and cells in processes of their own",
    "howto/inspect.md": "a policy that has learnt something, and three reports on it",
    "results/stability.md": "two suites of cells",
    "howto/logging.md": "wandb starts a process for every run",
}
"""Pages that take longer than a few seconds, and why; the others together stay below a minute."""

LARGE = {
    "rlmin.interop.zoo": "rl_zoo3",
    "torchrl": "torchrl",
    "rllib": "ray",
    "onnx": "onnxruntime",
    "wandb": "wandb",
    "hub": "huggingface_hub",
    "--video": "moviepy",
    "ALE/": "ale_py",
    "Hopper": "mujoco",
    "rlmin tune": "optuna",
}
"""What a page writes where it needs a large package."""

OTHERS = ("pip install ", "tensorboard ", "python examples/", "git clone ", "cd ")
"""Commands of a page that are not run."""

ZOO = ["python", "-m", "rlmin.interop.zoo"]
"""Another command line of rlmin, run as well."""

FENCE = re.compile(r"^```(\w+)( .*)?\n(.*?)^```$|^<!-- test: (.*?) -> (.*?) -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and the line of the page it begins in."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, with what a test replaces replaced."""
    found, changes = list[Block](), dict[str, str]()
    used, text = set[str](), page.read_text()
    for match in FENCE.finditer(text):
        kind, word, block, old, new = match.groups()
        line = text[: match.start()].count("\n") + 1
        if old is not None:
            changes[old] = new
            continue
        assert kind not in ("python", "console") or not word, f"{page.name}:{line}: nothing may follow {kind!r}"
        if kind in ("python", "console"):
            used |= {old for old in changes if old in block}
            for old, new in changes.items():
                block = block.replace(old, new)
        found.append(Block(kind, block, line))
    assert used == set(changes), f"{page.name}: to be replaced, but not found below: {set(changes) - used}"
    return found


def commands(block: str) -> list[str]:
    """The commands of a console block."""
    return [line[2:] for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def run_page(page: Path) -> dict[str, Any]:
    """Run every block in the present folder; the namespace they leave."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind == "python" and (file := re.match(r"# (\w+\.py)\n", block.text)):
            Path(file[1]).write_text(block.text)
            sys.path.insert(0, os.getcwd())  # as of a reader who works in that folder
        elif block.kind == "python":
            code = compile("\n" * block.line + block.text, str(page), "exec")  # a traceback shows the page's line
            exec(code, namespace)
        for command in commands(block.text) if block.kind == "console" else []:
            words = shlex.split(command.partition("  #")[0])
            if words[0] == "rlmin":
                run_command(words[1:])
            elif words[:3] == ZOO:
                importlib.import_module(ZOO[-1]).main(words[3:])
            else:
                assert command.startswith(OTHERS), f"{page.name}: a command that no test runs: {command}"
    return namespace


def run_command(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as stopped:
        assert not stopped.code, f"rlmin {shlex.join(arguments)} stopped with {stopped.code}"


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def marked(page: Path) -> Any:
    marks = [pytest.mark.needs("mkdocs", *packages(page))]
    marks += [pytest.mark.slow] if name(page) in SLOW else []
    return pytest.param(page, id=name(page), marks=marks)


def packages(page: Path) -> list[str]:
    """The large packages that a page may need: those it names."""
    text = page.read_text()
    return [package for word, package in LARGE.items() if word in text]


@pytest.mark.filterwarnings("default", "error:::rlmin", "default::UserWarning")  # others', and of tiny budgets
@pytest.mark.parametrize("page", [*map(marked, PAGES), pytest.param(ROOT / "CONTRIBUTING.md", id="CONTRIBUTING.md")])
def test_every_block_of_a_page_runs(page: Path, reader: Path) -> None:
    torch.manual_seed(0)
    run_page(page)


BROKEN = {
    "code that fails": ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", AssertionError, "^$"),
    "an option that is not one": (
        "```console\n$ rlmin list presets\n$ rlmin plot a --fil b\n```\n",
        AssertionError,
        "2",
    ),
    "a command of something else": ("```console\n$ rm -rf /\n```\n", AssertionError, "that no test runs: rm"),
    "code that asks to be left out": ("```python no-run\nx\n```\n", AssertionError, "nothing may follow 'python'"),
    "a change of nothing": ("<!-- test: 5_000 -> 5 -->\n```python\nx = 500\n```\n", AssertionError, "5_000"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_page_that_does_not_run_is_found(case: str, reader: Path) -> None:
    text, error, message = BROKEN[case]
    (reader / "page.md").write_text(text)
    with pytest.raises(error, match=message):
        run_page(reader / "page.md")


def test_blocks_share_a_namespace_and_a_change_holds_below_it(reader: Path) -> None:
    page = "```python\nx = 7\n```\n<!-- test: 1_000 -> 3 -->\n```python\nx += 1_000\n```\n```text\n1_000\n```\n"
    (reader / "page.md").write_text(page)
    assert run_page(reader / "page.md")["x"] == 10
    assert [block.line for block in blocks(reader / "page.md")] == [1, 5, 8]
    assert commands("$ rlmin a \\\n    --b c\nit says\n$ pip x\n") == ["rlmin a      --b c", "pip x"]


# links, navigation, tables


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page that are files."""
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link.partition("#")[0] for link in found if not re.match(r"https?://|mailto:|#", link)]


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for link in links(page):
        assert (page.parent / link).exists(), f"{page.name}: nothing at {link}"


CODE = re.compile(r"^```(python|py|console|sh|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def wide_lines(text: str) -> list[str]:
    """Lines of code and commands with more than 80 columns; what a command printed may be as wide as it was."""
    found = []
    for kind, block in CODE.findall(text):
        goes_on = False
        for line in block.splitlines():
            typed = goes_on or kind != "console" or line.startswith("$ ")
            goes_on = typed and line.endswith("\\")
            if typed and len(line.removeprefix("$ ")) > 80:
                found.append(line)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_fits_a_narrow_screen_and_holds_what_a_test_replaces(page: Path) -> None:
    assert not wide_lines(page.read_text())
    blocks(page)


def test_a_wide_line_is_found() -> None:
    wide = "x" * 81
    assert wide_lines(f"```python\n{wide}\n```\n```console\n$ a \\\n{wide}\n{wide}\n```\n") == [wide, wide]


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("[a](b.md) ![c](d/e.png) [f](g.md#h) [i](https://j.k) [l](#m) `[n](o.md)`\n")
    assert links(tmp_path / "page.md") == ["b.md", "d/e.png", "g.md"]


def nav_pages(nav: Any) -> Iterator[str]:
    """The pages of mkdocs' navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []:
        yield from nav_pages(part)


def test_the_navigation_has_every_page_once() -> None:
    found = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(found) == sorted(map(name, PAGES))


def hook(file: str) -> ModuleType:
    """A module of docs/ that mkdocs calls when the site is built."""
    spec = importlib.util.spec_from_file_location(f"docs_{file}", DOCS / f"{file}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """What makes tables when the site is built."""
    return hook("tables")


def test_the_copy_button_takes_commands_alone_and_old_addresses_lead_to_pages() -> None:
    site = hook("site")
    made = site.on_page_markdown("```console\n$ a \\\n    --b\nprinted\n$ c\n```\n| x [1, 2] |\n")
    assert made.split("\n\n") == [
        "```sh\na \\\n    --b\n```", "```text\nprinted\n```", "```sh\nc\n```\n| x [1,&nbsp;2] |\n",
    ]  # fmt: skip
    for old, new in site.MOVED.items():
        assert not (DOCS / f"{old}.md").exists()
        assert (DOCS / f"{new}.md").exists() or (DOCS / new / "index.md").exists(), new


COMMAND_PAGES = [page for page in PAGES if page.parent.name == "commands" and "## Examples" in page.read_text()]


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=name)
def test_examples_of_a_command_have_options_that_it_knows(page: Path) -> None:
    kinds = re.findall(r"<!-- settings: ([\w.]+)", page.read_text())
    if page.stem == "train":
        kinds += [f"rlmin.commands.train_config.{kind}" for kind in ("TrainConfig", "DecisionTrainConfig")]
    known = {key for kind in kinds for key in describe_settings(hook("tables").kind_of(kind))}
    examples = page.read_text().partition("## Examples")[2].partition("```sh\n")[2].partition("```")[0]
    lines = examples.replace("\\\n", " ").splitlines()
    assert lines and all(line.startswith(f"rlmin {page.stem} ") for line in lines)
    assert {word[2:].replace("-", "_") for line in lines for word in line.split() if word[:2] == "--"} <= known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_table_of_a_page_can_be_made(page: Path, tables: ModuleType) -> None:
    text = page.read_text()
    made = tables.on_page_markdown(text)
    assert not tables.MARK.search(made)
    assert not re.search(r"<!-- (?!test: )", made), "a mark of no kind that is known"


def test_a_table_says_what_the_file_says_and_refuses_what_is_not_in_it(tables: ModuleType) -> None:
    rows = tables.read("tmaze.csv")
    made = tables.table("tmaze.csv", "encoder -> memory, seed, greedy return", "encoder=min_gru").splitlines()
    assert made[0] == "| memory | seed | greedy return |"
    assert len(made) - 2 == sum(row["encoder"] == "min_gru" for row in rows) < len(rows)
    with pytest.raises(ValueError, match="no column 'gredy return'; it has encoder, seed"):
        tables.table("tmaze.csv", "gredy return")
    with pytest.raises(ValueError, match="no row with encoder=transformer"):
        tables.table("tmaze.csv", "seed", "encoder=transformer")
    wide = tables.pivot("defaults.csv", "task", "column", "final, worst").splitlines()
    assert wide[0].startswith("| task | min_gru |") and len({line.count("|") for line in wide}) == 1
    assert any(line.startswith("| CartPole-v1 | 500 / 500 |") for line in wide)
    with pytest.raises(ValueError, match="no column 'last'; it has task, column"):
        tables.pivot("defaults.csv", "task", "column", "last")
    assert "| `lr` | a number above 0 | `0.001` | Learning rate at the start of training |" in tables.settings(
        "rlmin.agents.ppo_config.PPOConfig"
    )
    assert [tables.shown(cell) for cell in ("12345.6", "602112", "0.98396", "-197.21", "S11")] == [
        "12,346", "602,112", "0.984", "-197", "S11",
    ]  # fmt: skip


# what is told is all there is


def public_names(module: str) -> list[str]:
    """Names that a package re-exports."""
    text = (ROOT / module.replace(".", "/") / "__init__.py").read_text()
    listed = re.search(r"__all__ = \[(.*?)\]", text, re.DOTALL)
    return re.findall(r'"(\w+)"', listed[1]) if listed else re.findall(r"import \w+ as ([A-Za-z]\w*)", text)


PACKAGES = ["rlmin", "rlmin.agents", "rlmin.encoders", "rlmin.scan", "rlmin.data", "rlmin.wrappers"]


def reference() -> list[str]:
    """What the pages of the API describe."""
    return re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in DOCS.glob("api/*.md")), re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(package: str) -> None:
    last, names = {entry.rpartition(".")[2] for entry in reference()}, public_names(package)
    assert names
    assert set(names) <= last, f"missing: {sorted(set(names) - last)}"


def test_the_reference_has_nothing_twice() -> None:
    entries = reference()
    assert sorted(entries) == sorted(set(entries))


def test_every_logged_metric_is_defined_and_no_other(tmp_path: Path) -> None:
    from stable_baselines3.common.logger import KVWriter, Logger

    from rlmin import PPO, DecisionAgent
    from rlmin.commands.watchdog import Watchdog
    from rlmin.data import Episode

    class Keys(KVWriter):
        """Remembers what is logged."""

        def __init__(self) -> None:
            self.found = set[str]()

        def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
            self.found |= set(key_values)

        def close(self) -> None: ...

    def logged(agent: Any, steps: int) -> set[str]:
        keys = Keys()
        agent.set_logger(Logger(None, [keys]))
        agent.learn(steps)
        return {re.sub(r"(memory/log10_time_scale)/.*", r"\1/NAME", key) for key in keys.found}

    maze = PPO("rlmin/TMaze-v0", env_kwargs={"length": 2}, num_envs=4, horizon=6, width=8, seed=0)
    found = logged(maze, 2 * 4 * 6)
    keys = Keys()
    maze.set_logger(Logger(None, [keys]))
    with closing(Watchdog(maze, tmp_path, count=1, share=1e3, total=48)) as watchdog:
        watchdog.evaluate()
    found |= keys.found
    zeros = torch.zeros(9, 3).numpy()
    episodes = [Episode(zeros, torch.arange(8).numpy() % 2, zeros[1:, 0], terminated=True) for _ in range(20)]
    found |= logged(DecisionAgent(episodes, width=8, rows=2, horizon=6, held_out=0.2, seed=0), 48)
    recorders = [path.name for path in (ROOT / "rlmin").rglob("*.py") if "logger.record(" in path.read_text()]
    assert sorted(recorders) == ["callbacks.py", "logs.py", "watchdog.py"], (
        "another file logs something: what, is not asked here"
    )
    told = re.findall(r"^\| `([\w/]+)` \|", (DOCS / "reference" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(found)


# the site


@pytest.mark.slow
@pytest.mark.needs("mkdocs")
def test_the_site_is_built_without_a_warning_and_without_a_network(tmp_path: Path) -> None:
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **nowhere})
    assert built.returncode == 0, built.stdout + built.stderr
    for file in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]* (?:src|href)=\"?(https?://[^\s\">]+)", file.read_text())
        assert not loaded, f"{file.name} loads {loaded}"
    front = (tmp_path / "site" / "index.html").read_text()
    assert "rlmin" in front and "<!-- table" not in front
