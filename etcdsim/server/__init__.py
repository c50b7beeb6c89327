"""The simulator behind etcd's own API: gRPC services over one member's state.

Everything here runs on one asyncio event loop. A unary handler is an ordinary function and runs to
its end before anything else does, which is what makes a request atomic; there are no locks. Only
`listening` imports grpcio (the extra `etcd`).
"""
