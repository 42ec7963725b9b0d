"""Panels: slices of a source, their queries and candidates, and what trainings read."""
