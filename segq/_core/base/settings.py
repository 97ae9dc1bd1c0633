"""The settings a queue is created with and keeps: validated, frozen, stored in `queue.json`."""

from __future__ import annotations

import dataclasses
from typing import Any

from segq._core.base.errors import SettingsConflict, SettingsError

SEGMENT_ITEMS = 65_536  # with 100-byte items a segment is 6.5 MB, which its producer holds in memory until it is sealed
SEGMENT_BYTES = 16 << 20  # bounds the memory that reading a segment takes (RocksDB replays its log into memory)
MOST_DELIVERIES = 255  # a ledger counts them in a byte
MAX_ITEM_BYTES = 1 << 30  # RocksDB copies a value about four times on its way; 1 GiB keeps that within reason
_LONGEST_TTL_MS = (1 << 32) - 1  # what the format has place for
_CHOICES = {"on_full": ("block", "drop_oldest"), "retain": ("until-acked", "ttl")}
BUILTIN_SERIALIZERS = ("msgpack", "json", "pickle", "raw")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `Queue(...)` or `Topic(...)` was created with. Sizes in bytes, times in seconds, None for "no limit"."""

    capacity: int | None = None
    max_bytes: int | None = None
    serializer: str = "msgpack"
    durability: str = "process"
    lease: float | None = None
    segment_items: int = SEGMENT_ITEMS
    segment_bytes: int = SEGMENT_BYTES
    ttl: float | None = None
    on_full: str = "block"
    retain: str = "until-acked"
    max_deliveries: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Of the settings that not every queue has, those that are not the default."""
        every = dataclasses.asdict(self)
        return {name: value for name, value in every.items() if name not in _LATER or value != _LATER[name]}

    @property
    def droppable(self) -> bool:
        """Whether items may go before they were delivered, other than by their time running out."""
        return self.on_full == "drop_oldest"


_LATER = {
    field.name: field.default
    for field in dataclasses.fields(Settings)
    if field.name in ("ttl", "on_full", "retain", "max_deliveries")
}


def _whole(name: str, value: Any, least: int, most: int = 1 << 62) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(f"{name} must be a whole number, not {value!r}")
    if not least <= value <= most:
        raise SettingsError(f"{name} must be between {least} and {most}, not {value}")
    return value


def positive_seconds(name: str, value: Any) -> float:
    """`value` as seconds greater than 0; raises SettingsError naming `name`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e10:
        raise SettingsError(f"{name} must be a number of seconds greater than 0, not {value!r}")
    return float(value)


def time_to_live(value: Any) -> float:
    """`value` as the seconds that an item lives; raises SettingsError."""
    seconds = positive_seconds("ttl", value)
    if seconds * 1000 > _LONGEST_TTL_MS:
        raise SettingsError(f"ttl must be {_LONGEST_TTL_MS // 1000} s (49 days) at most, not {value!r}; None is for ever")
    return seconds


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; raises SettingsError naming `name`."""
    return _whole(name, value, least)


def validated(given: dict[str, Any]) -> dict[str, Any]:
    """The settings in `given` that are not None, each checked; raises SettingsError naming the first bad one."""
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        match name:
            case "capacity" | "max_bytes":
                checked[name] = _whole(name, value, 1)
            case "segment_items":
                checked[name] = _whole(name, value, 1, 1 << 24)
            case "max_deliveries":
                checked[name] = _whole(name, value, 1, MOST_DELIVERIES)
            case "segment_bytes":
                checked[name] = _whole(name, value, 4096, 1 << 32)
            case "lease":
                checked[name] = positive_seconds(name, value)
            case "ttl":
                checked[name] = time_to_live(value)
            case "on_full" | "retain" if value not in _CHOICES[name]:
                raise SettingsError(f"{name} must be one of {', '.join(map(repr, _CHOICES[name]))}, not {value!r}")
            case "on_full" | "retain":
                checked[name] = value
            case "durability":
                if value not in ("process", "power"):
                    raise SettingsError(f'durability must be "process" or "power", not {value!r}')
                checked[name] = value
            case "serializer":
                if not isinstance(value, str):
                    raise SettingsError(f"serializer must be a name by now, not {value!r}")
                if value not in BUILTIN_SERIALIZERS and not value.startswith("custom:"):
                    raise SettingsError(f"there is no serializer {value!r}")
                checked[name] = value
            case _:
                raise SettingsError(f"unknown setting {name!r}: written by a newer segq?")
    return checked


def reconciled(stored: Settings, given: dict[str, Any], path: str) -> Settings:
    """`stored`, if every setting in `given` agrees with it; raises SettingsConflict naming the one that does not.

    A queue that was made without `max_deliveries` can be opened with it: it holds for what that handle is handed then.
    """
    for name, value in given.items():
        kept = getattr(stored, name)
        if name == "max_deliveries" and kept is None:  # asked of this handle; the queue itself has no opinion
            stored = dataclasses.replace(stored, max_deliveries=value)
        elif kept != value:
            raise SettingsConflict(
                f"{path} was created with {name}={kept!r}, not {value!r}; leave {name} out to use the queue as it is,"
                " or create another queue",
                path=path,
            )
    return stored
