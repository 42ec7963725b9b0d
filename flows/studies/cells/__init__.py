"""Cells: which models a study trains, at which ages, and what each one scores."""
