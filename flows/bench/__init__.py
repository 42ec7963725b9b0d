"""Speed of the online path and of swaps, measured on a shop made for it."""
