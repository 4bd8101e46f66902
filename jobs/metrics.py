"""What the background reports to Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

LOOP_SECONDS = Histogram(
    "millrace_loop_seconds",
    "Duration of one turn of a background loop.",
    ["loop"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
)
LOOP_FAILURES = Counter("millrace_loop_failures", "Turns of a background loop that failed.", ["loop"])
WORKER_READY = Gauge("millrace_worker_ready", "1 while this worker claims runs, else 0.")
WORKER_HEARTBEAT = Gauge(
    "millrace_worker_heartbeat_seconds", "When this worker's housekeeping last ran, epoch seconds."
)
SCHEDULES_FIRED = Counter("millrace_schedules_fired", "Firings of schedules.", ["outcome"])
INSTANCES_RETIRED = Counter("millrace_instances_retired", "Finished instances deleted at the end of their retention.")
INSTANCES_TERMINATED = Counter("millrace_instances_terminated", "Instances ended by background jobs.", ["kind"])
WEBHOOK_EVENTS = Counter("millrace_webhook_events", "Events put up for delivery, per endpoint.")
WEBHOOK_ATTEMPTS = Counter("millrace_webhook_attempts", "Attempts to deliver an event.", ["outcome"])
