"""The open-loop load generator; ignorant of models and of ranking."""
