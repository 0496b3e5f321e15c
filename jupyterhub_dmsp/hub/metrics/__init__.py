"""What is counted and timed: the hub's own Prometheus metrics, and each start followed to its end."""
