"""Serializers: what goes in comes out, and their names say which one a queue was written with."""

from __future__ import annotations

import json
import marshal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segq
from segq._core.base.errors import SerializationError, SettingsError
from segq._core.base.serializers import Serializer, codec, name_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


class Shouting:
    """A serializer of the user's."""

    def dumps(self, item: str) -> bytes:
        return item.upper().encode()

    def loads(self, data: bytes) -> str:
        return data.decode()


@pytest.mark.parametrize("name", ["msgpack", "json", "pickle"])
@settings(max_examples=40)
@given(item=PLAIN)
def test_plain_values_come_back_equal(name: str, item: Any) -> None:
    dumps, loads = codec(name, None)
    assert loads(dumps(item)) == item


@given(st.text(st.characters(), max_size=20))
def test_json_takes_text_with_lone_surrogates(item: str) -> None:
    dumps, loads = codec("json", None)
    assert loads(dumps(item)) == item


@pytest.mark.parametrize("item", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_raw_stores_bytes_of_any_kind(item: Any) -> None:
    dumps, loads = codec("raw", None)
    assert loads(dumps(item)) == b"x"


@pytest.mark.parametrize("item", ["text", 5, None, [b"x"]])
def test_raw_refuses_what_is_not_bytes(queue_path: str, item: Any) -> None:
    with segq.Queue(queue_path, serializer="raw") as q:
        with pytest.raises(SerializationError, match="raw"):
            q.put(item)
        assert q.qsize() == 0


def test_the_built_in_names_are_themselves_and_an_object_is_remembered_by_its_module_and_name() -> None:
    assert name_of("json") == "json"
    assert name_of(json) == "custom:json"
    assert name_of(Shouting()).endswith(".Shouting")
    assert name_of(Shouting()).startswith("custom:")
    assert isinstance(marshal, Serializer)


@pytest.mark.parametrize(
    "bad",
    ["msgpak", "", object(), 5, type("Half", (), {"dumps": bytes})()],
    ids=["unknown", "empty", "object", "number", "half"],
)
def test_what_is_no_serializer_is_refused(bad: Any) -> None:
    with pytest.raises(SettingsError, match="serializer"):
        name_of(bad)


def test_a_queue_written_with_an_object_has_to_be_opened_with_it(queue_path: str) -> None:
    with segq.Queue(queue_path, serializer=Shouting()) as q:
        q.put("hey")
    with pytest.raises(SettingsError, match="Shouting"):
        segq.Queue(queue_path)
    with segq.Queue(queue_path, serializer=Shouting()) as q:
        assert q.get() == "HEY"


@pytest.mark.parametrize("result", ["text", None, 5, ["list"]], ids=repr)
def test_a_serializer_that_returns_no_bytes_is_told_so_and_nothing_is_stored(queue_path: str, result: Any) -> None:
    class Wrong:
        def dumps(self, item: Any) -> Any:
            return result if item == "wrong" else b"right"

        def loads(self, data: bytes) -> bytes:
            return data

    with segq.Queue(queue_path, serializer=Wrong()) as q:
        for _ in range(2):
            with pytest.raises(SerializationError, match="bytes"):
                q.put("wrong")
            with pytest.raises(SerializationError, match="bytes"):
                q.put_many(["right", "wrong"])
            q.put("right")
        assert q.get_many(10) == [b"right", b"right"]


@pytest.mark.parametrize("serializer", ["msgpack", "json", "pickle", "raw"])
def test_each_built_in_serializer_carries_items_through_a_queue(queue_path: str, serializer: str) -> None:
    items = [b"", b"\x00" * 1000] if serializer == "raw" else [None, 0, "é", [1, [2]], {"a": 1.5}]
    with segq.Queue(queue_path, serializer=serializer) as q:
        for item in items:
            q.put(item)
        q.put_many(items)
        assert [q.get() for _ in items] == items
        assert q.get_many(100) == items
