"""A queue's items to an HTTP API; needs `pip install 'segq[http]'`.

`HttpSink` keeps many requests under way, acknowledges an item when the API has taken it, tries again later what may succeed
later, and gives up the rest, with the reason, into the queue's dead letters. See docs/http.md.
"""

from segq.connectors.http.limits import Limits
from segq.connectors.http.request import Request, outgoing
from segq.connectors.http.sink import HttpSink, SinkCounts

__all__ = ["HttpSink", "Limits", "Request", "SinkCounts", "outgoing"]
