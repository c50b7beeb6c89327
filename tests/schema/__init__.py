"""The table of facts of the Kubernetes API types: made from Go sources, proved, measured."""
