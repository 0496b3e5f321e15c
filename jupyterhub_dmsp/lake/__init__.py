"""The data lake: DIDs, listings, rules, quotas and errors of Rucio over its REST API, asynchronously.

Knows nothing of Jupyter, of the hub or of a mounted file system.
"""
