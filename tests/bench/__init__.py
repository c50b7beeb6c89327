"""`make bench`: the tree and what could be used instead of it, measured in the same minutes.

Each rival lives in a process of its own (`worker.py`, or `go/main.go`) and is asked for one round
after the other, in turn: memory, garbage collection and caches of one can't be billed to another,
and a slow minute of a shared machine hits all of them. What counts are ratios of paired rounds.
"""
