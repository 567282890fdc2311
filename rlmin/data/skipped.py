"""Skipped: the bad episodes of a source that are left out, and the report of them."""

from dataclasses import dataclass, field

SHOWN = 10
"""Episodes whose faults a report names one by one."""


@dataclass
class Skipped:
    """The episodes of a source that are left out, by their numbers in it."""

    reasons: dict[int, str] = field(default_factory=dict)  # number -> what is wrong with it
    unread: set[int] = field(default_factory=set)  # numbers of those that a reader itself leaves out

    def add(self, episode: int, error: Exception, *, unread: bool = False) -> None:
        """Leave an episode out; `error` begins with the name of the dataset."""
        text = str(error).partition("; leave ")[0]
        text = text.partition(": ")[2] if text.startswith("dataset ") else text
        self.reasons[episode] = text if text.startswith("episode ") else f"episode {episode}: {text}"
        if unread:
            self.unread.add(episode)

    def describe(self, total: int) -> str:
        """The report, of so many episodes in all."""
        parts = [self.reasons[e] for e in sorted(self.reasons)]
        more = f"; and {len(parts) - SHOWN:,} more" if len(parts) > SHOWN else ""
        return f"left out {len(parts):,} of {total:,} episodes: {'; '.join(parts[:SHOWN])}{more}"
