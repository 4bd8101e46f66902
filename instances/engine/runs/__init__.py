"""A run in memory: from the claim that opened it until it parks, ends, is released or lost.

A run is driven by its session, the deterministic half that a runtime supplies (`instances.runtimes.protocol`), and does
for it all that is not deterministic: attempts, retries, timers, events, pauses, the journal.

    run           the loop: turn, commit, rest
    replay        recorded results handed over in journal order; the session held to what is recorded
    steps         what the run is doing: attempts side by side, completion from outside, children
    outcomes      what becomes of a step when an attempt has ended: completion, retry, failure
    waits         what it waits for without doing anything: sleeps, events, timers
    control       what commands from outside want; how the run ends
    notes         what it says: log lines and records
    usage         what it used of what its account allows
    unit_of_work  what was written and not committed yet, and who hears of the commit

    held, state   what a claim told about the run; what its parts share
    recorded      the past of a run, folded from its journal
    inbox, timetable, deadlines, clock, breath, step, open_steps, attempts, children, failures, endings: what these are
    made of
"""
