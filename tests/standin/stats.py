"""What was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.standin.login import Counts


@dataclass
class Stats:
    """What was asked for. Overridden and failed requests count too."""

    in_flight: int = 0
    peak: int = 0
    requests: int = 0
    redirects: int = 0
    not_found: int = 0
    other: int = 0
    index_offsets: list[int] = field(default_factory=list)
    details: Counter[str] = field(default_factory=Counter)
    user_agents: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    door: Counts = field(default_factory=Counts)

    def arrive(self, user_agent: str) -> None:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.user_agents[user_agent] += 1

    def leave(self, status: int) -> None:
        self.in_flight -= 1
        self.redirects += status == 301
        self.not_found += status == 404

    def report(self, details: bool) -> dict[str, Any]:
        asked = self.details.total()
        report = vars(self) | {"index": len(self.index_offsets), "detail": asked}
        report |= {"repeats": asked - len(self.details), "user_agents": list(self.user_agents)}
        report["door"] = vars(self.door)
        return report if details else {k: v for k, v in report.items() if k != "details"}
