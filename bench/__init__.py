"""What this platform does per second on this machine, and what it costs. See README.md."""
