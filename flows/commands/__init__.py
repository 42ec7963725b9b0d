"""One file a verb. Each has `app`, imports only light modules at the top, and calls one plain function."""
