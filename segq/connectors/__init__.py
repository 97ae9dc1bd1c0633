"""Sources that fill a queue and sinks that empty it."""
