"""Name what the supervisor needs of the world, and ship an in-memory double of each.

The doubles are for tests and rehearsals: they keep what they were told, and answer from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fettle.promotion.records import Arm, Attempt


class Router(Protocol):
    """Moves traffic. Every call may be repeated without harm."""

    def set_weights(self, challenger_weight: float, *, sticky_key: str | None = None) -> None:
        """Send this share (0 to 1) to the challenger; 0 is the champion alone, 1 its opposite."""

    def weight(self) -> float:
        """Return the share in force, as the router itself has it."""

    def read(self, since: int) -> tuple[Sequence[Attempt], int]:
        """Return the attempts logged after position `since`, and the position to go on from."""


class Arms(Protocol):
    """Runs releases as servers of their own."""

    def start(self, arm: Arm, release: str) -> str:
        """Start `release` as `arm` unless it runs already; return its loopback address."""

    def stop(self, arm: Arm) -> None:
        """Drain and stop it, if it runs."""

    def ready(self, arm: Arm) -> bool:
        """Say whether a real inference is answered."""


class Registry(Protocol):
    """Knows which release an alias names."""

    def resolve(self, alias: str) -> str | None:
        """Return the digest of the release, None where the alias is not set."""

    def move(self, alias: str, release: str, tags: dict[str, str]) -> None:
        """Let the alias name this release, with the verdict in its tags."""


class Clock(Protocol):
    """Tells the time."""

    def now_s(self) -> float:
        """Return seconds since the epoch."""


@dataclass
class MemoryRouter:
    """Routes nothing: keeps the weight, and hands out the attempts that a test fed it."""

    attempts: list[Attempt] = field(default_factory=list)
    weights: list[float] = field(default_factory=lambda: [0.0])

    def set_weights(self, challenger_weight: float, *, sticky_key: str | None = None) -> None:
        """Keep the weight; `sticky_key` changes nothing here."""
        del sticky_key
        if self.weights[-1] != challenger_weight:
            self.weights.append(challenger_weight)

    def weight(self) -> float:
        """Return the last weight."""
        return self.weights[-1]

    def feed(self, attempts: Iterable[Attempt]) -> None:
        """Log these attempts."""
        self.attempts.extend(attempts)

    def read(self, since: int) -> tuple[Sequence[Attempt], int]:
        """Return what was fed after position `since`."""
        return self.attempts[since:], len(self.attempts)


@dataclass
class MemoryArms:
    """Starts nothing: remembers which release stands on which arm."""

    running: dict[Arm, str] = field(default_factory=dict)
    dead: set[Arm] = field(default_factory=set)

    def start(self, arm: Arm, release: str) -> str:
        """Remember the release."""
        self.running[arm] = release
        return f"http://127.0.0.1/{arm.value}"

    def stop(self, arm: Arm) -> None:
        """Forget the release."""
        self.running.pop(arm, None)

    def ready(self, arm: Arm) -> bool:
        """Say whether it stands and was not declared dead."""
        return arm in self.running and arm not in self.dead


@dataclass
class MemoryRegistry:
    """Keeps aliases and the tags of their last move."""

    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)

    def resolve(self, alias: str) -> str | None:
        """Return the release of the alias."""
        return self.aliases.get(alias)

    def move(self, alias: str, release: str, tags: dict[str, str]) -> None:
        """Set the alias."""
        self.aliases[alias] = release
        self.tags[alias] = tags


@dataclass
class MemoryClock:
    """Stands still until a test moves it."""

    time_s: float = 0.0

    def now_s(self) -> float:
        """Return the set time."""
        return self.time_s
