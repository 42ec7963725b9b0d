"""Schema, journal, segments, the state and its fold, the store, worlds and real sources."""
