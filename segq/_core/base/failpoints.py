"""Named points at which a test can stop the process: no-ops unless the environment arms them before the import.

``SEGQ_FAILPOINTS="seal.renamed=kill, put.stored=kill:3"`` kills this process with SIGKILL the first time it reaches
``seal.renamed`` or the third time it reaches ``put.stored``. The other action, ``raise``, raises `OSError(ENOSPC)`,
so that the error paths of the disk can be walked without filling one.

Hot paths guard the call with ``if ARMED:``, which costs one global look-up. The names reached are listed in `POINTS`;
an unknown one is refused at import, so a test cannot pass by naming a point that is gone.
"""

from __future__ import annotations

import errno
import os
import signal

POINTS = frozenset(
    {
        "put.begun", "put.payload", "put.published", "turn.begun", "turn.flushed", "turn.turned",
        "block.begun", "block.written", "block.published", "blob.begun", "blob.reused", "blob.written",
        "create.named", "create.ledger", "create.batch", "create.rocksdb",
        "seal.begun", "seal.flushed", "seal.closed", "seal.marked", "seal.renamed", "seal.tidied", "resume.renamed",
        "claim.marked", "claim.moved", "claim.chosen", "get.taken", "get.done", "receive.handed",
        "ack.begun", "ack.done", "nack.begun", "nack.done",
        "delay.noted", "delay.marked", "delay.freed", "dead.noted", "dead.stored", "dead.done",
        "retire.begun", "retire.renamed", "retire.deleted",
        "label.begun", "label.created", "label.chosen", "label.ledger", "label.noted", "label.removed",
        "gone.renamed", "gone.booked", "gone.all_booked", "drop.begun", "drop.marked", "drop.done",
        "rescue.begun", "rescue.sealed", "rescue.freed", "rescue.forgotten",
    }
)  # fmt: skip


def _parse(text: str) -> dict[str, tuple[str, int]]:
    armed: dict[str, tuple[str, int]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, action = part.partition("=")
        verb, _, times = (action or "kill").partition(":")
        if name not in POINTS or verb not in ("kill", "raise"):
            raise ValueError(f"SEGQ_FAILPOINTS: no such fault point or action: {part!r}")
        armed[name] = (verb, int(times or "1"))
    return armed


_armed = _parse(os.environ.get("SEGQ_FAILPOINTS", ""))
ARMED = bool(_armed)


def reach(name: str) -> None:
    """Say that the code has come to the point `name`; does nothing unless it is armed."""
    if name not in _armed:
        return
    verb, times = _armed[name]
    if times > 1:
        _armed[name] = (verb, times - 1)
        return
    del _armed[name]
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, f"fault point {name}")
