"""The same questions to a real API server and to `btreecache serve`, on one etcd.

`questions` makes them from a seed, `answers` asks them and says what of an answer counts, `known`
lists every difference that there may be, with its argument. `python -m tests.apiservers.comparing`
runs it; a difference that isn't listed fails.
"""
