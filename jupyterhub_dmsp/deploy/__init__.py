"""What brings the configuration to a cluster: the chart's schema, and Helm."""
