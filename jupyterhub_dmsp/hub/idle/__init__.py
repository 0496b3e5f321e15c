"""Ends sessions in which nothing happens.

What counts as something is for the user's server to say (``lab/activity.py``).
"""
