"""Private engine of segq: everything below may change without notice.

Packages, each importing only those before it: base, format, system, segment, directory, recovery, background, put, take.
`segment/` is one segment, `directory/` the set of them; an item goes in by `put/producer.py` and out by `take/consumer.py`.
"""
