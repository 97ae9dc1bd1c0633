"""Taking: choose a segment, claim items, read them, hand them out, settle them.

May import: `background`, `recovery` and the packages below them; never `put`. Open `consumer.py` first, then `claimer.py`.
"""
