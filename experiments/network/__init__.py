"""Training over slow links: a cluster of network namespaces on one machine, timed."""
