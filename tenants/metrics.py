"""Metrics of the platform, as module-level Prometheus objects that any package may feed.

They live at the bottom of the dependency order so that engine, jobs and API share one registry; each process serves
its own on `MILLRACE_METRICS_BIND`. No label carries an account or an id: their number would be unbounded.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

INSTANCES_UNFINISHED = Gauge(
    "millrace_instances_unfinished",
    "Unfinished instances of all accounts by status. Every worker reports the same figure: take the maximum.",
    ["status"],
)
QUEUE_AGE_SECONDS = Gauge(
    "millrace_queue_age_seconds", "How long the instance that is ready the longest has been waiting for a worker."
)
INSTANCES_CREATED = Counter("millrace_instances_created", "Instances created by this process.", ["trigger"])
INSTANCES_ENDED = Counter("millrace_instances_ended", "Instances ended by this process.", ["status"])
EVENTS_STORED = Counter("millrace_events_stored", "Events stored for instances by this process.")

RUNS_HELD = Gauge("millrace_runs_held", "Runs this worker holds in memory.")
CLAIM_SECONDS = Histogram("millrace_claim_seconds", "Time of one claim.", buckets=_FAST)
CLAIMED_RUNS = Counter("millrace_claimed_runs", "Runs claimed by this worker.")
FLUSH_SECONDS = Histogram("millrace_flush_seconds", "Time of one group commit.", ["writer"], buckets=_FAST)
FLUSH_ENTRIES = Histogram("millrace_flush_entries", "Changes in one group commit.", ["writer"], buckets=_SIZES)
STEP_SECONDS = Histogram("millrace_step_seconds", "Time of one step attempt.", ["runtime", "outcome"])
LEASE_LOSSES = Counter("millrace_lease_losses", "Times this worker found its lease gone.")
FENCED_FLUSHES = Counter("millrace_fenced_flushes", "Changes refused because the run had been replaced from outside.")
TAKEOVERS = Counter("millrace_takeovers", "Runs taken over from workers that stopped renewing their lease.")
SANDBOXES = Gauge("millrace_sandboxes", "Sandbox processes alive.", ["language"])
SANDBOX_STARTS = Counter("millrace_sandbox_starts", "Sandbox processes started.", ["language"])
SANDBOX_KILLS = Counter("millrace_sandbox_kills", "Sandbox processes that ended, by what ended them.", ["reason"])

LOOP_LAG_SECONDS = Gauge("millrace_loop_lag_seconds", "How late the event loop ran a timer, last measured.")
LOOP_LAG_MAX_SECONDS = Gauge("millrace_loop_lag_max_seconds", "The most the event loop was late lately (decaying).")
