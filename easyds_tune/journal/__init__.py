"""The journal of a sweep: events, append, read, replay. Standard library only."""
