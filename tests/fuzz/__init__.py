"""Hostile requests by the million: tokens, selectors, versions, keys, made at random from a seed.

`requests` makes them, `world` is what they are asked of, `naive` says what they mean in the
plainest way, `judge` says what may come of them. `python -m tests.fuzz` runs many seeds.
"""
