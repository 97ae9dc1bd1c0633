"""Stand-ins for other libraries' queues, on segq's public API alone."""
