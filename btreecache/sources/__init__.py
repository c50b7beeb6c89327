"""Sources of history, one module each; every one implements `btreecache.source.Source`.

Nothing is imported here: a source pulls in its own optional dependency when it is used.
"""
