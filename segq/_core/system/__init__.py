"""What the operating system gives: files, mapped files, futexes, locks. No queue policy.

May import: `base`, `format`. Open `fs.py` first, then `mapped.py` and `locks.py`.
"""
