"""Recovery: what a dead process held is sealed, freed and made readable by whoever notices.

May import: `directory` and the packages below it. Open `recovery.py`.
"""
