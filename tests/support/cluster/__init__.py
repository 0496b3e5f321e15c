"""A Kubernetes cluster for tests: real servers on the loopback, nodes and pods that only say that they run."""
