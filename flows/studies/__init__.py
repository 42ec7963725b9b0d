"""The studies: how fresh do the models have to be, at what cost."""
