"""The note beside an import in progress: what is imported, and how far it has come, by stages; each begins with one write."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

from segq._core.base.errors import QueueError
from segq._core.format import format as fmt
from segq._core.system import fs
from segq.transfer.source import SourceError

READING, ORDERING, PLACING, MOVING, ENDED = "reading", "ordering", "placing", "moving", "ended"
_FILE = "plan.json"
_RECEIPTS = "segq-imported.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`uuid`, `place`: of the queue in the workshop, once it is complete; `total`: how many items the source has."""

    kind: str
    source: str
    table: str | None
    fingerprint: str
    serializer: str
    total: int
    stage: str = READING
    uuid: str | None = None
    place: str = "queue"

    def at(self, stage: str, **more: Any) -> Plan:
        return dataclasses.replace(self, stage=stage, **more)


def load(workshop: str) -> Plan | None:
    try:
        return Plan(**json.loads(fs.read_file(os.path.join(workshop, _FILE))))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise SourceError(f"{workshop} is no import's, or another version's; move it away") from error


def save(workshop: str, plan: Plan) -> Plan:
    fs.write_file(os.path.join(workshop, _FILE), json.dumps(dataclasses.asdict(plan), indent=2).encode(), durable=True)
    return plan


def uuid_of(queue: str) -> str | None:
    """The identity of the queue at `queue`; None if there is none."""
    try:
        return fmt.decode_queue_file(fs.read_file(os.path.join(queue, fmt.QUEUE_FILE)), queue)[0]
    except (FileNotFoundError, NotADirectoryError):
        return None


# --- receipts: what says, beside the source, that it was imported already ---


def _receipts_file(source: str) -> str:
    return os.path.join(source, _RECEIPTS) if os.path.isdir(source) else f"{source}.{_RECEIPTS}"


def receipts(source: str) -> list[dict[str, Any]]:
    try:
        with open(_receipts_file(source), "rb") as file:
            found = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return []
    return found if isinstance(found, list) else []


def imported_before(source: str, table: str | None, queue: str) -> dict[str, Any] | None:
    """The receipt of an import of this source into the queue that is at `queue` now."""
    uuid = uuid_of(queue)
    fitting = (r for r in receipts(source) if uuid is not None and r.get("uuid") == uuid and r.get("table") == table)
    return next(fitting, None)


def leave_receipt(plan: Plan, queue: str) -> bool:
    """Notes beside the source that it was imported; False if nothing can be written there."""
    kept = [r for r in receipts(plan.source) if (r.get("uuid"), r.get("table")) != (uuid_of(queue), plan.table)]
    kept.append(
        {
            "queue": queue,
            "uuid": uuid_of(queue),
            "table": plan.table,
            "items": plan.total,
            "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )
    try:
        fs.write_file(_receipts_file(plan.source), json.dumps(kept, indent=2).encode())
    except (OSError, QueueError):
        return False
    return True
