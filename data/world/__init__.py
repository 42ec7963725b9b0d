"""The seeded simulator of a shop, with its ground truth."""
