"""What is running: the state machine, the journal, the engine that drives instances, runtimes and projections."""
