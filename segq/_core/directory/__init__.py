"""The directory of a queue: its segments and their life cycle, its index, its owners, its labels.

May import: `base`, `format`, `system`, `segment`. Open `catalog.py` first; its table `LIFE` is the life of a segment.
"""
