"""The worker: starts containers, feeds them with the inputs of their pools, publishes what comes out."""
