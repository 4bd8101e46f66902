"""What may run: scripts, workflows, immutable versions, the definition document, graphs and schedules."""
