"""segq for asyncio: the same queues and topics, shared with whoever has them open through the synchronous API.

>>> import asyncio, tempfile
>>> from segq import aio
>>> async def main():
...     async with aio.Queue(tempfile.mkdtemp() + "/jobs") as q:
...         await q.put({"n": 1})
...         return await q.get()
>>> asyncio.run(main())
{'n': 1}

How it waits: the loop sleeps where it always does, on its descriptors. One thread per process sleeps on the words in shared
memory at which the queues' waiters are rung (`watcher`), and tells the loop.

How it works: what is a matter of memory is done at once, in the loop's thread; what may ask the disk is done by a thread of the
handle (`worker`), and nothing is in that thread's hands that a cancellation could lose.
"""

from segq.aio.connect import connect
from segq.aio.messages import Messages
from segq.aio.queue import Queue
from segq.aio.topic import Subscription, Topic

__all__ = ["Messages", "Queue", "Subscription", "Topic", "connect"]
