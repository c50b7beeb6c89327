"""Random machines against models that keep a plain dict per revision.

A machine is made from a generator, does one checked thing at each `step(rng)`, and at `finish()`
checks again everything that it ever held. Hypothesis drives the machines in CI and shrinks what it
finds (`test_machines.py`); `python -m tests.machines` runs many seeds.
"""
