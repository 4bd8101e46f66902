"""What the figures should be, on a machine like the one the goals were set on (2 cores, commits of 0.1 ms).

They stand for being ahead of the fastest comparable engine on every row, measured on that machine. On another machine
only ratios say something: compare with `of_floor`, or with a run of an earlier commit.
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
    "parked": [Goal("per_instance_kb", most=1)],
    "single": [Goal("p50", most=4.0)],
    "hello": [Goal("per_second", least=2_875), Goal("cpu_ms", most=0.8), Goal("of_floor", least=0.33)],
    "chain10": [Goal("steps_per_second", least=10_300), Goal("cpu_ms", most=2.5), Goal("of_floor", least=0.33)],
    "fanout10": [Goal("steps_per_second", least=14_000), Goal("of_floor", least=0.33)],
    "event": [Goal("per_second", least=1_208), Goal("p50", most=51)],
    "create": [],
    "batch": [Goal("per_second", least=8_060)],
    "sleepers": [Goal("p95", most=1_315)],
    "recovery": [Goal("seconds", most=2.3), Goal("lost", most=0), Goal("repeated_steps", most=500)],
    "idle": [Goal("percent", most=5)],
}
