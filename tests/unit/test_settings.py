"""Settings: each is checked, what is stored wins, and a conflict is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import segq
from segq._core.base.errors import SettingsConflict, SettingsError
from segq._core.base.settings import Settings, positive_seconds, reconciled, validated, whole_number

BAD: list[tuple[str, Any]] = [
    ("capacity", 0),
    ("capacity", -1),
    ("capacity", 1.5),
    ("capacity", "7"),
    ("capacity", True),
    ("max_bytes", 0),
    ("max_bytes", -5),
    ("max_bytes", 1e6),
    ("segment_items", 0),
    ("segment_items", -3),
    ("segment_items", 1 << 25),
    ("segment_bytes", 100),
    ("segment_bytes", -1),
    ("segment_bytes", 1 << 33),
    ("lease", 0),
    ("lease", -1),
    ("lease", "1"),
    ("lease", True),
    ("lease", float("nan")),
    ("lease", float("inf")),
    ("durability", "disk"),
    ("durability", 1),
    ("serializer", 5),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}={value!r}" for name, value in BAD])
def test_a_setting_that_cannot_work_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name):
        validated({name: value})


def test_a_setting_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="colour"):
        validated({"colour": 1})


def test_what_is_not_given_is_left_out() -> None:
    assert validated({"capacity": None, "lease": 2}) == {"lease": 2.0}


def test_settings_that_agree_are_the_stored_ones() -> None:
    stored = Settings(capacity=5)
    assert reconciled(stored, {"capacity": 5}, "p") is stored
    assert reconciled(stored, {}, "p") is stored


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_a_conflicting_setting_is_named_with_both_values(name: str) -> None:
    stored = Settings(max_deliveries=5)
    other = {"capacity": 99, "max_bytes": 99, "serializer": "raw", "durability": "power", "lease": 99.0}.get(name, 8192)
    with pytest.raises(SettingsConflict, match=rf"/some/where .*{name}=.*{other}") as caught:
        reconciled(stored, {name: other}, "/some/where")
    assert caught.value.path == "/some/where"


def test_a_queue_without_max_deliveries_can_be_opened_with_it() -> None:
    assert reconciled(Settings(capacity=5), {"max_deliveries": 3}, "p") == Settings(capacity=5, max_deliveries=3)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().capacity = 1  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, -1, "1", None, True, float("nan")])
def test_seconds_have_to_be_greater_than_nothing(value: Any) -> None:
    with pytest.raises(SettingsError, match="seconds"):
        positive_seconds("seconds", value)


@pytest.mark.parametrize("value", [0, -1, "1", None, True, 1.0])
def test_a_count_has_to_be_a_whole_number_of_at_least_one(value: Any) -> None:
    with pytest.raises(SettingsError, match="max_items"):
        whole_number("max_items", value)


def test_a_time_to_live_that_the_format_has_no_place_for_is_refused(queue_path: str) -> None:
    with pytest.raises(segq.SettingsError, match="49 days"):
        segq.Topic(queue_path, ttl=4_294_968)
    with segq.Queue(queue_path) as q:
        with pytest.raises(segq.SettingsError, match="49 days"):
            q.put(1, ttl=4_294_968)
        q.put(2, ttl=4_294_967)
        assert q.get() == 2
