"""The HTML report of a demo, and what all reports share: theme, words, the page."""
