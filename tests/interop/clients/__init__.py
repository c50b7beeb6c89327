"""Real clients of the Kubernetes API against `btreecache serve`, and what each of them asks.

`cluster` is a real etcd, a server over it, and what was written; `contract` says once what every
client must see of it; `recording` writes down what a client asked. One file for each client; its
requests are in `requests/`, where a change of the client shows as a diff.
"""
