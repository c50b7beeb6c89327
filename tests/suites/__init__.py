"""Suites of other clients of etcd, on a real etcd and on etcdsim: `make interop-suites`."""
