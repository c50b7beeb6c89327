"""From wire to window: what an event and an initial load cost. `python -m tests.pipeline`."""
