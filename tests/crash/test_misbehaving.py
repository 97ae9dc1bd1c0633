"""Processes that do what processes do not do: stopped past their lease, killed with a lock in hand, outlived by their children, in
another PID namespace, with a clock that jumps, many at once, without descriptors.

(A stopped process is alive, a PID given to another proves nothing, an inherited handle: `tests/unit/test_process.py`, `tests/fork`.)
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, check_clean, until

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

from actors import PATIENCE, Child

import segq
from segq._core.directory import owners

RESCUED_WITHIN = 10.0  # about one second is promised; a busy machine gets more


def taken(queue: segq.Queue, count: int, seconds: float = RESCUED_WITHIN) -> list[Any]:
    """So many items, within the time."""
    found: list[Any] = []

    def enough() -> bool:
        with contextlib.suppress(segq.Empty):
            found.extend(queue.get_many(count - len(found), timeout=0.1))
        return len(found) >= count

    until(enough, seconds, f"{count} items are there, {found} so far")
    return found


# --- stopped ----------------------------------------------------------------------------------------------------------


def test_who_is_stopped_past_its_lease_loses_the_item_and_its_late_ack_is_refused(queue_path: str) -> None:
    code = """
m = q.receive(timeout=30)
say(m.value)
wait()
try: m.ack()
except segq.ReceiptError: say("refused")
else: say("accepted")
"""
    with segq.Queue(queue_path, lease=0.5) as q:
        q.put("theirs")
        with Child(code, queue_path) as child:
            assert child.hear() == "theirs"
            child.stop()
            messages: list[segq.Message] = []

            def delivered() -> bool:
                with contextlib.suppress(segq.Empty):
                    messages.append(q.receive(timeout=0.1))
                return bool(messages)

            until(delivered, PATIENCE, "the item of the stopped process is handed out again")
            message = messages[0]
            message.extend(PATIENCE)
            assert (message.value, message.deliveries) == ("theirs", 2)
            assert owners.is_alive(queue_path, 2), "who is stopped is not dead"
            child.resume()
            child.go()
            assert child.hear() == "refused"
            child.ends()
            message.ack()
            with pytest.raises(segq.Empty):
                q.get(timeout=0.7)


# --- killed with a lock in hand ---------------------------------------------------------------------------------------

LOCKS = {
    "queue.lock": "with q._parts.catalog.structure:",
    "index": "with q._parts.index.lock:",
    "ledger": "with q._consumer._shelf.at_hand.ledger.lock:",
    "the producer's ledger": "with q._producer._segment.ledger.lock:",
}


@pytest.mark.parametrize("lock", [*list(LOCKS)[:3], pytest.param(list(LOCKS)[3], marks=pytest.mark.torture)])
def test_who_is_killed_with_a_lock_in_hand_blocks_nobody(queue_path: str, lock: str) -> None:
    code = f"""
m = q.receive(timeout=30)
q.put("put by the dead")
{LOCKS[lock]}
    say("locked")
    wait()
"""
    with segq.Queue(queue_path, capacity=100, max_bytes=100_000) as q:
        q.put_many(["held", "free"])
        with Child(code, queue_path) as child:
            assert child.hear() == "locked"
            child.kill()
            q.put("after")
            assert sorted(taken(q, 4)) == ["after", "free", "held", "put by the dead"]
            assert q.qsize() == 0
    check_clean(Path(queue_path))


def test_others_wait_for_who_is_stopped_with_the_lock_of_a_ledger_in_hand_and_go_on_when_it_is_killed(queue_path: str) -> None:
    code = f"m = q.receive(timeout=30)\n{LOCKS['ledger']}\n    say('locked')\n    wait()\n"
    getting = "say('begun')\nsay(q.get(timeout=30))\n"
    with segq.Queue(queue_path) as q:
        q.put_many([1, 2, 3])
        with Child(code, queue_path) as child, Child(getting, queue_path) as other:
            assert child.hear() == "locked"
            child.stop()
            assert other.hear() == "begun"
            child.kill()
            first = other.hear()
            other.ends()
            assert sorted([int(first), *taken(q, 2)]) == [1, 2, 3]


# --- children that live on --------------------------------------------------------------------------------------------


def test_a_forked_child_that_outlives_a_killed_producer_keeps_nothing_of_it(queue_path: str) -> None:
    code = """
q.put_many(range(5))
m = q.receive(timeout=30)
child = os.fork()
if not child:
    signal.pause()
    os._exit(0)
q.put(5)
say(child)
wait()
"""
    with segq.Queue(queue_path) as q:
        with Child(code, queue_path) as parent:
            child = int(parent.hear())
            try:
                parent.process.kill()
                parent.process.wait(PATIENCE)
                assert sorted(taken(q, 6)) == list(range(6))
                assert len(owners.slots(queue_path)) == 1, "the dead producer's slot is still there"
                os.kill(child, 0)  # it lives on all the while
            finally:
                os.kill(child, 9)
        assert q.qsize() == 0


def test_a_forked_child_that_puts_while_its_parent_is_killed_loses_nothing(queue_path: str) -> None:
    code = """
q.put("parent's")
child = os.fork()
if not child:
    q.put("child's")
    say(os.getpid())
    signal.pause()
wait()
"""
    with segq.Queue(queue_path) as q, Child(code, queue_path) as parent:
        child = int(parent.hear())
        try:
            parent.process.kill()
            parent.process.wait(PATIENCE)
            assert sorted(taken(q, 2)) == ["child's", "parent's"]
            until(lambda: len(owners.slots(queue_path)) == 2, RESCUED_WITHIN, "only the child and we have the queue open")
        finally:
            os.kill(child, 9)
        until(lambda: q.empty() and not rescued(q), RESCUED_WITHIN, "the child is rescued as well")


def rescued(queue: segq.Queue) -> bool:
    """Looks after others, as whoever waits does; whether somebody but us has the queue open."""
    with contextlib.suppress(segq.Empty):
        queue.get(timeout=0.6)
    return len(owners.slots(queue.path)) > 1


# --- PIDs that say nothing --------------------------------------------------------------------------------------------


def test_a_stale_owner_file_with_the_pid_of_a_living_process_is_rescued(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("held")
        with Child("m = q.receive(timeout=30)\nsay('got')\nwait()\n", queue_path) as child:
            assert child.hear() == "got"
            child.kill()
        owner = Path(queue_path, "owners", "0002")
        record = owner.read_text().replace(str(child.process.pid), str(os.getpid()))
        owner.write_text(record)  # as if the PID had been given to us
        assert taken(q, 1) == ["held"]
        assert not owner.exists()


NAMESPACED = """
import os, sys, segq
with segq.Queue(sys.argv[1]) as q:
    print(os.getpid(), flush=True)
    q.put_many([f"{sys.argv[2]}{n}" for n in range(50)])
    message = q.receive(timeout=30)
    print("ready", flush=True)
    sys.stdin.readline()
    print("mine" if q._parts.owner.slot in segq._core.directory.owners.slots(sys.argv[1]) else "rescued", flush=True)
    message.ack()
    print(message.value, flush=True)
"""


def namespaced(path: str, name: str) -> subprocess.Popen[str]:
    """A process that is number 1 of a PID namespace of its own."""
    command = ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-c", NAMESPACED, path, name]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_of_two_pid_namespaces_work_together_and_neither_rescues_the_other(queue_path: str) -> None:
    try:
        tried = subprocess.run(["unshare", "-p", "-f", "--mount-proc", "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if tried.returncode:
        pytest.skip(f"no PID namespaces here: {tried.stderr.strip()}")
    with segq.Queue(queue_path) as q:
        others = [namespaced(queue_path, name) for name in ("a", "b")]
        try:
            for other in others:
                assert other.stdout is not None
                assert other.stdout.readline() == "1\n", "it is not alone in its namespace"
                assert other.stdout.readline() == "ready\n"
            held = q.stats()
            assert (len(held.owners), held.claimed) == (3, 2)
            found = taken(q, 98)
            with pytest.raises(segq.Empty):
                q.get(timeout=1.2)  # long enough for us to look after the dead, and find none
            assert q.stats().rescues == 0
            for other in others:
                said, _ = other.communicate("\n", timeout=PATIENCE)
                words = said.split()
                assert words[0] == "mine", "a living process was taken for dead"
                found.append(words[1])
                assert other.returncode == 0
            assert sorted(found) == sorted(f"{name}{n}" for name in "ab" for n in range(50))
        finally:
            for other in others:
                if other.poll() is None:
                    other.kill()
                    other.communicate(timeout=PATIENCE)


# --- clocks that jump -------------------------------------------------------------------------------------------------

JUMPING = """
import time
real, real_ns, offset = time.time, time.time_ns, 0.0
time.time, time.time_ns = lambda: real() + offset, lambda: real_ns() + int(offset * 1e9)
for n, offset in enumerate([0.0, float(sys.argv[2]), 0.0, -float(sys.argv[2])] * 3):
    q.put(3 * n)
    q.put_many([3 * n + 1, 3 * n + 2])
    if n % 2:
        q.close()
        q = segq.Queue(sys.argv[1])
"""


@pytest.mark.parametrize("step", [86_400.0, *(pytest.param(step, marks=pytest.mark.torture) for step in (90.0, 4e7))])
def test_a_clock_that_is_set_forth_and_back_costs_no_item_and_no_order(queue_path: str, step: float) -> None:
    with segq.Queue(queue_path, segment_items=4, lease=60.0) as q:
        with Child(JUMPING, queue_path, step) as child:
            child.ends()
        assert [message_of(q) for _ in range(36)] == list(range(36))
        assert q.qsize() == 0
    check_clean(Path(queue_path))


def message_of(queue: segq.Queue) -> Any:
    with queue.receive(timeout=5) as message:
        assert message.deliveries == 1
        return message.value


def test_a_lease_is_not_cut_short_by_a_clock_that_is_set_forward(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with segq.Queue(queue_path, lease=30.0) as q, segq.Queue(queue_path) as other:
        q.put("mine")
        message = q.receive(timeout=5)
        for offset in (3600.0, -3600.0):
            monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
            with pytest.raises(segq.Empty):
                other.get(timeout=0.7)
        message.ack()
        assert q.qsize() == 0


# --- many at once -----------------------------------------------------------------------------------------------------

OPENING = """
import traceback
path, results, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def open_and_work(n):
    with segq.Queue(path) as q:
        q.put(n)
        q.put_many([n + 1000, n + 2000])
        found = q.get(timeout=60)
    with open(os.path.join(results, str(n)), "w") as file:
        file.write(str(found))

begin, hold = os.pipe()
children = []
for n in range(count):
    child = os.fork()
    if child:
        children.append(child)
        continue
    code = 1
    try:
        os.close(hold)
        os.read(begin, 1)  # until nobody holds the other end any more
        open_and_work(n)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
os.close(hold)
say(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.torture)])
def test_processes_that_open_a_new_queue_all_at_once_all_work(tmp_path: Path, count: int) -> None:
    path, results = tmp_path / "queue", tmp_path / "results"
    results.mkdir()
    with Child(OPENING, path, results, count, opens=False) as child:
        said, _ = child.process.communicate(timeout=300)
        assert said == "0\n", f"of {count} processes so many failed: {said}"
    found = [int(file.read_text()) for file in results.iterdir()]
    assert len(found) == count
    with segq.Queue(path) as q:
        found += taken(q, 2 * count)
        assert q.qsize() == 0
        assert len(owners.slots(str(path))) == 1
    assert sorted(found) == sorted(n + k for n in range(count) for k in (0, 1000, 2000))
    check_clean(path)


# --- hardly any descriptors -------------------------------------------------------------------------------------------

STARVED = """
import resource
n, refused = 0, 0
q.put("before")
limit = len(os.listdir("/proc/self/fd")) + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
stored = ["before"]
for n in range(60):
    try:
        q.put(n)
        stored.append(n)
        q.put_many([f"{n} {k}" for k in range(5)])
        stored += [f"{n} {k}" for k in range(5)]
    except segq.StorageError as error:
        assert "too many open files" in str(error), error
        refused += 1
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
q.put("after")
q.close()
say(json.dumps([refused, stored]))
"""


@pytest.mark.parametrize("spare", [3, *(pytest.param(n, marks=pytest.mark.torture) for n in (0, 1, 2, 6, 12, 20, 40))])
def test_a_producer_without_descriptors_says_so_and_loses_nothing(queue_path: str, spare: int) -> None:
    with segq.Queue(queue_path, segment_items=16) as q:
        with Child("import json\n" + STARVED, queue_path, spare) as child:
            refused, stored = json.loads(child.ends())
        assert refused or spare > 3, "with nothing to open files with, something has to be refused"
        assert not refused or spare < 40, "40 are plenty"
        found = taken(q, len(stored) + 1)
        assert sorted(map(str, found)) == sorted(map(str, [*stored, "after"]))
        with pytest.raises(segq.Empty):
            q.get(timeout=0.05)


STARVED_CONSUMER = """
import json, resource
limit = len(os.listdir("/proc/self/fd")) + int(sys.argv[2])
found, refused = [], 0
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
for n in range(200):
    try:
        found.append(q.get(timeout=0.01))
    except segq.StorageError as error:
        assert "too many open files" in str(error), error
        refused += 1
    except segq.Empty:
        pass
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
while True:
    try: found.append(q.get(timeout=2))
    except segq.Empty: break
say(json.dumps([refused, found]))
"""


@pytest.mark.parametrize("spare", [2, *(pytest.param(n, marks=pytest.mark.torture) for n in (0, 1, 5, 9))])
def test_a_consumer_without_descriptors_says_so_and_loses_nothing(queue_path: str, spare: int) -> None:
    with segq.Queue(queue_path, segment_items=10) as q:
        q.put_many(range(5))
        for n in range(5, 100):
            q.put(n)
        with Child(STARVED_CONSUMER, queue_path, spare) as child:
            _refused, found = json.loads(child.ends())
        assert sorted(found) == list(range(100))
        assert not (Path(queue_path) / "quarantine").exists(), "what a lack of descriptors hides is not damaged"


def test_opening_without_descriptors_is_an_error_of_ours(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    code = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
before = len(os.listdir("/proc/self/fd"))
for spare in range(12):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + spare, hard))
    try:
        segq.Queue(sys.argv[1]).close()
        say("opened", spare)
    except segq.QueueError as error:
        assert "too many open files" in str(error), error
        say("refused", spare)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
with segq.Queue(sys.argv[1]) as q:
    q.put(1)
    assert q.get(timeout=5) == 1
"""
    with Child(code, queue_path, opens=False) as child:
        said = child.ends()
    assert said.startswith("refused 0")
    assert said.splitlines()[-1].startswith("opened")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100
