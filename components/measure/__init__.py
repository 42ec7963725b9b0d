"""Spans and latency histograms."""
