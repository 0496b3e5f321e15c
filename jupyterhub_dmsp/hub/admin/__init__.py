"""What admins see: a page with the metrics at a glance."""
