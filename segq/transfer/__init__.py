"""Queues of other libraries, brought over into ours: `transfer(...)`, which `segq import` calls.

The source is only read. Its items go, in the order in which they would have been got, into a new queue in a *workshop* beside
the target, `<queue>.importing/`, where nobody takes anything out: so how many it holds is how far the import has come, and
that number is stored by the same write as the items. Whoever goes on after a kill leaves out as many. In the end the finished
queue takes its place by one rename: it is there as a whole or not at all, and no item is in it twice.

A queue that exists already cannot be replaced. It gets the items one by one, each acknowledged in the workshop once it is
stored; a kill between the two stores that one item twice.
"""

from __future__ import annotations

from segq.transfer.importing import Imported, transfer
from segq.transfer.source import KINDS, Options, Source, SourceError, open_source

__all__ = ["KINDS", "Imported", "Options", "Source", "SourceError", "open_source", "transfer"]
