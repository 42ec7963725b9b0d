"""Worlds with known answers, and whether the instrument finds them."""
