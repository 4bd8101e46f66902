"""What happens in the background: arq wake-ups, timers, schedules, retention, batch termination."""
