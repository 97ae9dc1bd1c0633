"""Ten coroutines work on what an ordinary process puts, and answer it, without a thread for each and without polling.

Run it:

    python examples/asyncio_workers.py

You will see fifty squares, worked out by ten coroutines that wait for jobs from another process. Each job is acknowledged when
its coroutine comes for the next one; kill the program in between, and the job is there for the next.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

import segq
from segq import aio

JOBS = 50


def ask(path: str) -> None:
    """The ordinary process: puts the jobs one by one."""
    with segq.Queue(path) as jobs:
        for n in range(JOBS):
            jobs.put(n)


async def work(jobs: aio.Queue, answers: aio.Queue) -> None:
    """One coroutine: waits for a job, takes its time, answers."""
    async for message in jobs.messages():
        await asyncio.sleep(0.01)
        await answers.put([message.value, message.value**2])


async def serve(directory: str) -> None:
    """Starts the ten, has another process ask, and stops when all is answered."""
    path = os.path.join(directory, "jobs")
    async with aio.Queue(path) as jobs, aio.Queue(os.path.join(directory, "answers")) as answers:
        workers = [asyncio.create_task(work(jobs, answers)) for _ in range(10)]
        process = await asyncio.create_subprocess_exec(sys.executable, __file__, path)
        squares = dict([await answers.get() for _ in range(JOBS)])
        await process.wait()
        jobs.shutdown()  # ends the loops over messages
        await asyncio.gather(*workers)
        print(f"{len(squares)} squares, the last of them {squares[JOBS - 1]}; jobs left: {jobs.qsize()}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        ask(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as place:
            asyncio.run(serve(place))
