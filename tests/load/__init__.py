"""A server under load from other processes, and every answer judged.

    writer     writes to the source at a rate, compacts it, and notes what it wrote: the truth
    watchers   one watch a namespace; notes every event
    readers    lists, and chains of pages; digests what they get, and notes it
    judge      compares the notes with the truth, when all is over

What they note are lines of JSON, with times of one clock for all processes (CLOCK_MONOTONIC).
"""
