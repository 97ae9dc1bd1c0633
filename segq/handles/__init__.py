"""What a user holds: `Queue`, `Topic`, `Subscription`, `DeadLetters`, and what they share.

May import: everything in `segq._core`. Open `queue.py` first, then `handle.py` (opening, closing, fork).
"""
