"""The engine: group-committed journal, claim, drive, park, replay."""
