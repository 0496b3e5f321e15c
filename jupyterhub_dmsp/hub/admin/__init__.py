"""What admins see: Prometheus metrics and a page with the same at a glance."""
