"""Checking, repairing and salvaging queues that something has damaged.

May import: `segq.handles` and `segq._core`. Open `check.py` first (what `segq.check` does), then `salvage.py`.
"""
