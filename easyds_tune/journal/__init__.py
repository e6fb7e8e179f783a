"""The journal of a sweep: events, append, read, replay, repair. Standard library and orjson."""
