"""The volume study: training data against time and quality."""
