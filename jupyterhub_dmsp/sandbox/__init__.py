"""Isolation on one Linux machine: user ids, bubblewrap, network namespaces, control groups, processes.

Knows nothing of Jupyter: whoever starts a program for somebody else can use it.
"""
