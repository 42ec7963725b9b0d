"""Simulated shoppers and load against a running service, and the same loop in one process."""
