"""The two background threads of a handle: one returns idle reservations and claims, one removes expired items.

May import: `directory` and the packages below it. Open `release_idle.py` first, then `expire.py`.
"""
