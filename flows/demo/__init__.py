"""The demo: the whole loop on one machine, from nothing to a report."""
