"""How fast segq is, side by side with what one would use instead: ``python -m benchmarks``.

What is measured, and by which rules, is written in ``README.md`` beside this file.
"""
