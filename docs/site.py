"""What the site does beyond its pages: commands without their prompt, old addresses, the version.

A console block of a page mixes commands and what they print, so that a test can run it. On the site the two are apart:
what the copy button takes is commands alone.
"""

import html
import os
import re
from pathlib import Path
from typing import Any

from rlmin import __version__

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTERVAL = re.compile(r"(?<=\[)(-?[\d.]+), (?=-?[\d.]+\])")
MOVED = {
    "concepts": "start/concepts",
    "settings": "reference/settings",
    "metrics": "reference/metrics",
    "runs": "reference/runs",
    "benchmarks": "results",
    "stability": "results/stability",
    "limits": "help/limits",
    "howto/offline": "tutorials/offline",
}
"""Where a page was, and where it is."""

REDIRECT = '<!doctype html><meta charset="utf-8"><title>Moved</title><link rel="canonical" href="{to}">\n\
<meta http-equiv="refresh" content="0; url={to}"><p>This page has moved <a href="{to}">here</a>.</p>\n'


def on_config(config: Any) -> Any:
    """Show the version, and the repository where RLMIN_REPOSITORY names its address."""
    config.copyright = f"rlmin {__version__}, MIT licence"
    address = os.environ.get("RLMIN_REPOSITORY")
    if address:
        config.repo_url, config.repo_name = address, "repository"
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put commands apart from what they print, and keep the intervals of tables on one line."""
    markdown = CONSOLE.sub(lambda found: apart(found[1]), markdown)
    return re.sub(
        r"^\|.*$",
        lambda row: INTERVAL.sub(r"\1,&nbsp;", row[0]),
        markdown,
        flags=re.MULTILINE,
    )


def apart(block: str) -> str:
    """Commands in one block, what they print in the next."""
    parts: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in block.splitlines():
        kind = "sh" if goes_on or line.startswith("$ ") else "text"
        goes_on = kind == "sh" and line.endswith("\\")
        if not parts or parts[-1][0] != kind:
            parts.append((kind, []))
        parts[-1][1].append(line.removeprefix("$ ") if kind == "sh" else line)
    return "\n\n".join(
        "\n".join([f"```{kind}", *lines, "```"]) for kind, lines in parts
    )


def on_post_build(config: Any) -> None:
    """Leave a page that leads on at every old address."""
    for old, new in MOVED.items():
        place = Path(config.site_dir) / old / "index.html"
        to = "../" * (old.count("/") + 1) + new + "/"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(REDIRECT.format(to=html.escape(to)))
