"""Ray Serve and HTTP: the only place that imports ray.serve."""
