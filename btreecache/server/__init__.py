"""The Kubernetes-style HTTP API over caches: read-only, JSON. Needs the extra `serve`.

refusals      what only a server has to refuse
negotiation   which answers a client accepts
routing       what a path asks for
discovery     what there is to be asked
encoding      objects, lists, watch frames and Status objects as bytes
caches        one cache for each resource, begun when it is first wanted
watching      a watch, from its options to its stream
application   requests and answers
listening     sockets, signals, the end
"""
