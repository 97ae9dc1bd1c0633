"""Values that every other package uses: errors, settings, messages, dead letters, serializers, fault points.

May import: the standard library and msgspec only. Open `errors.py` first, then `settings.py`.
"""
