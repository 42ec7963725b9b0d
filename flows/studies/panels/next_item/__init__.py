"""Panels from logs without impressions, and the methods that are compared there."""
