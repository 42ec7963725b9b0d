"""A study run for real: policies keep a live service fresh, and are held against what the study predicted."""
