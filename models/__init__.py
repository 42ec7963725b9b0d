"""Trained and built artifacts, the features of candidates, ranking metrics, the release."""
