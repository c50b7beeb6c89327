"""Real API servers on an etcd, real or simulated: `python -m tests.apiservers`."""
