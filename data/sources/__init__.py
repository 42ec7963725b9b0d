"""Real data sets and bring-your-own logs."""
