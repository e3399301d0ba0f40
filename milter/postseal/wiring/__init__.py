"""``Config`` -> object graph, one module per process: the only place where sources are constructed."""
