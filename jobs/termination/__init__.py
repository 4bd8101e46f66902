"""Ending or deleting many instances in the background: who asks (`requests`) and who does it (`terminator`).

A job is a row. Its work is done in chunks by any worker, each chunk and its progress in one statement, so a crash
between any two instructions loses nothing and repeats nothing. What counts as "all" is cut at the job's start: what is
created later is left alone (a run that is claimed meanwhile is ended with the rest, its worker fenced off).
"""
