"""Settings, clock, errors, logging, downloads, registry, processes. Knows nothing of shops."""
