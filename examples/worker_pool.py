"""A pool of worker processes made with `multiprocessing`, fed through one queue and answering through another.

Run it:

    python examples/worker_pool.py

You will see each worker's share of 200 tasks, and the sum of the answers beside the sum a single process computes. The
pool needs no feeder thread, no manager process and no sentinel items: `shutdown` ends the workers when all is done.
"""

from __future__ import annotations

import collections
import multiprocessing
import os
import tempfile

import segq

TASKS = 200
WORKERS = 4


def primes_below(limit: int) -> int:
    """How many primes there are below `limit`: a task that takes about a millisecond."""
    sieve = bytearray([1]) * limit
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return sum(sieve[2:])


def worker(tasks: segq.Queue, answers: segq.Queue) -> None:
    """Works until the queue is shut down and empty. A queue can be handed to a child like any other argument."""
    while True:
        try:
            message = tasks.receive()
        except segq.ShutDown:
            return
        with message:  # acknowledged on leaving, given back if there is an exception
            limit = message.value
            answers.put({"limit": limit, "primes": primes_below(limit), "worker": os.getpid()})


def main() -> None:
    """Puts the tasks, starts the workers, waits for all of it, compares."""
    limits = [1000 + 50 * n for n in range(TASKS)]
    with tempfile.TemporaryDirectory() as directory:
        tasks = segq.Queue(os.path.join(directory, "tasks"))
        answers = segq.Queue(os.path.join(directory, "answers"))
        pool = [multiprocessing.Process(target=worker, args=(tasks, answers)) for _ in range(WORKERS)]
        for process in pool:
            process.start()

        tasks.put_many(limits)
        tasks.shutdown()  # no more tasks: workers end when those there are have been taken
        for process in pool:
            process.join()

        results = answers.get_many(TASKS + 1)
        tasks.close()
        answers.close()

    for pid, count in sorted(collections.Counter(result["worker"] for result in results).items()):
        print(f"worker {pid} did {count} tasks")
    print(f"{len(results)} answers, in all {sum(result['primes'] for result in results)} primes")
    print(f"one process finds {sum(map(primes_below, limits))}")


if __name__ == "__main__":
    main()
