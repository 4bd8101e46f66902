"""What the figures must be: the promises of this release, on two cores with every commit on disk.

On a busy or slower machine only ratios say something: compare with `of_floor`, or with a run of an earlier commit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """`figure` of a measurement should be at least `least` or at most `most`."""

    figure: str
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


GOALS: dict[str, list[Goal]] = {
    "parked": [Goal("worker_mb", most=200)],
    "single": [Goal("p50", most=15)],
    "hello": [Goal("per_second", least=1_000), Goal("of_floor", least=0.33)],
    "chain10": [Goal("steps_per_second", least=5_000), Goal("of_floor", least=0.33)],
    "fanout10": [Goal("steps_per_second", least=5_000), Goal("of_floor", least=0.33)],
    "js_hello": [Goal("per_second", least=500)],
    "js_chain10": [Goal("steps_per_second", least=3_000)],
    "sandbox": [
        Goal("fresh_ms", most=15),
        Goal("warm_ms", most=5),
        Goal("replay_ms", most=20),
        Goal("memory_mb", most=300),
        Goal("python_fresh_ms", most=30),
        Goal("python_warm_ms", most=10),
        Goal("python_replay_ms", most=40),
        Goal("python_memory_mb", most=300),
    ],
    "asked": [],
    "event": [Goal("p50", most=15)],
    "events": [],
    "create": [Goal("per_second", least=1_500)],
    "batch": [Goal("per_second", least=5_000)],
    "sleepers": [Goal("max", most=5_000)],
    "egress": [Goal("calls_per_second", least=1_000), Goal("http_share", least=0.33)],
    "recovery": [Goal("resumed", most=10), Goal("lost", most=0)],
    "idle": [Goal("percent", most=3)],
    "sse": [Goal("p50", most=20), Goal("api_mb", most=250), Goal("percent", most=5)],
    "webhooks": [],
    "face_list": [Goal("p95", most=50)],
    "metrics": [Goal("p95", most=300), Goal("statistics_p95", most=300)],
}
