"""The modules that public classes lived in before they moved, under their old names.

An item that an earlier version pickled names a class by its module, so `segq.queue` and the others must lead to it as long as
such an item may lie in a queue. There is no warning: where warnings are errors, it would put a stored item into quarantine.
"""

from __future__ import annotations

import sys

from segq._core.base import letter, message, serializers, settings
from segq._core.directory import tally
from segq.doctor import problem, salvage
from segq.engines import bridge
from segq.handles import dead, queue, subscription, topic

MOVED = {
    "bridge": bridge, "dead": dead, "letter": letter, "message": message, "problem": problem, "queue": queue,
    "salvage": salvage, "serializers": serializers, "settings": settings, "stats": tally, "subscription": subscription,
    "topic": topic,
}  # fmt: skip

for _name, _module in MOVED.items():
    sys.modules[f"segq.{_name}"] = _module
    setattr(sys.modules["segq"], _name, _module)  # `segq.salvage` becomes the function again when the package imports that
