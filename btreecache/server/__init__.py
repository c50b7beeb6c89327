"""The Kubernetes-style HTTP API over caches: read-only. Needs the extra `serve`.

refusals      what only a server has to refuse
routing       what a path asks for
discovery     what there is to be asked
openapi       the same for programs: every path, every field
documents     both as they go out: made once, with an ETag
health        whether it is well, as load balancers ask
hidden        Secrets
caches        one cache for each resource, begun when it is first wanted
definitions   custom resources that come and go with their definitions
sending       bodies and watches, to a client that may go
failures      errors as answers
bounded       requests that are too large
certificates  TLS, and who a client's certificate says it is
access        by which names, by whom, and what nobody is shown
counts        what is counted of requests and watches
metrics       everything that is counted, for a scrape
debug         how the server is, as a page
observed      the layer around the application that sees every request
fairness      whose turn it is
overload      what is expensive takes turns, and is refused beyond
request_log   a line for each request
application   requests and answers
connection    what uvicorn leaves open about a connection
listening     sockets, signals, the end
"""
