"""What a study tells: its record, words, pictures, report, comparison, TREC files."""
