"""Putting: from an item to bytes in a loading segment, with room reserved and a consumer woken.

May import: `background`, `recovery` and the packages below them; never `take`. Open `producer.py` first.
"""
