"""How good is what is served: by hidden relevance, labels, or clicks; and what each part adds."""
