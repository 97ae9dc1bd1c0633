"""What cannot work is refused with an error that names it, and changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from actors import Child, states

import segq
from segq._core.put import producer


def contents(path: str | Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(Path(path).rglob("*")) if file.is_file()}


BAD_SETTINGS: list[tuple[str, Any]] = [
    *[("capacity", value) for value in (0, -1, 1.5, "7", True)],
    *[("max_bytes", value) for value in (0, -1, "1k")],
    *[("prefetch", value) for value in (0, -1, 1.5, "2", True)],
    *[("lease", value) for value in (0, -1, "1", float("nan"), True)],
    *[("segment_items", value) for value in (0, -1, 1.5, 1 << 30)],
    *[("segment_bytes", value) for value in (0, -1, 1)],
    *[("serializer", value) for value in ("yaml", 5, object)],
    *[("durability", value) for value in ("none", True)],
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS, ids=[f"{name}={value!r}" for name, value in BAD_SETTINGS])
def test_a_bad_setting_is_refused_by_name_and_nothing_is_created(queue_path: str, name: str, value: Any) -> None:
    with pytest.raises(segq.SettingsError, match=name):
        segq.Queue(queue_path, **{name: value})
    assert not os.path.lexists(queue_path)


@pytest.mark.parametrize("path", [5, None, ["q"], 1.5], ids=repr)
def test_a_path_of_another_type_is_a_type_error(path: Any) -> None:
    with pytest.raises(TypeError):
        segq.Queue(path)


CALLS: dict[str, Any] = {
    "put": lambda q, timeout: q.put(1, timeout=timeout),
    "put_many": lambda q, timeout: q.put_many([1], timeout=timeout),
    "get": lambda q, timeout: q.get(timeout=timeout),
    "get_many": lambda q, timeout: q.get_many(1, timeout=timeout),
    "receive": lambda q, timeout: q.receive(timeout=timeout),
    "receive_many": lambda q, timeout: q.receive_many(1, timeout=timeout),
    "join": lambda q, timeout: q.join(timeout=timeout),
}


@pytest.mark.parametrize("timeout", [-1, -0.001, "1", True, float("nan"), [1], float("-inf")], ids=repr)
@pytest.mark.parametrize("call", CALLS)
def test_a_bad_timeout_is_a_value_error(queue_path: str, call: str, timeout: Any) -> None:
    with segq.Queue(queue_path) as q:
        with pytest.raises(ValueError, match="timeout"):
            CALLS[call](q, timeout)
        assert q.empty()


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 0])
def test_timeouts_of_any_length_work(queue_path: str, timeout: float) -> None:
    with segq.Queue(queue_path) as q:
        q.put(1, timeout=timeout)
        q.put_many([2, 3], timeout=timeout)
        assert q.get(timeout=timeout) == 1
        assert q.get_many(5, timeout=timeout) == [2, 3]


@pytest.mark.parametrize("count", [0, -1, 1.5, "1", None, True], ids=repr)
@pytest.mark.parametrize("method", ["get_many", "receive_many", "peek"])
def test_a_bad_count_is_a_value_error(queue_path: str, method: str, count: Any) -> None:
    with segq.Queue(queue_path) as q:
        q.put(1)
        with pytest.raises(segq.SettingsError):
            getattr(q, method)(count)
        assert q.qsize() == 1


def test_a_huge_count_takes_what_is_there(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(range(10))
        assert q.peek(2**40) == list(range(10))
        assert q.get_many(2**40) == list(range(10))


@pytest.mark.parametrize(
    "item", [object(), {1, 2}.__iter__(), lambda: 1, 2**70], ids=["object", "iterator", "function", "huge int"]
)
def test_an_item_that_cannot_be_serialised_is_refused_and_the_queue_goes_on(queue_path: str, item: Any) -> None:
    with segq.Queue(queue_path) as q:
        q.put(1)
        with pytest.raises(segq.SerializationError, match="nothing was stored"):
            q.put(item)
        with pytest.raises(segq.SerializationError):
            q.put_many([2, item, 3])
        q.put(4)
        assert q.get_many(10) == [1, 4]


def test_an_endlessly_nested_item_is_refused(queue_path: str) -> None:
    loop: list[Any] = []
    loop.append(loop)
    for serializer in ("json", "msgpack"):
        with segq.Queue(f"{queue_path}-{serializer}", serializer=serializer) as q:
            with pytest.raises(segq.SerializationError):
                q.put(loop)
            q.put([])
            assert q.get() == []


def test_what_can_never_fit_is_refused_at_once_and_stores_nothing(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=3, max_bytes=100, serializer="raw") as q:
        with pytest.raises(segq.ItemTooLarge, match="capacity of 3"):
            q.put_many([b"x"] * 4)
        with pytest.raises(segq.ItemTooLarge, match="max_bytes=100"):
            q.put(b"x" * 101)
        with pytest.raises(segq.ItemTooLarge, match="max_bytes=100"):
            q.put_many([b"x" * 51] * 2)
        assert states(queue_path) == []
        q.put(b"x" * 100)
        assert q.full()


def test_an_item_beyond_the_largest_that_segq_takes_is_refused(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "MAX_ITEM_BYTES", 1000)
    with segq.Queue(queue_path, serializer="raw") as q:
        with pytest.raises(segq.ItemTooLarge, match="in pieces"):
            q.put(b"x" * 1001)
        q.put(b"x" * 1000)
        assert q.get_many(5) == [b"x" * 1000]


# --- places ---


@pytest.mark.parametrize("call", [segq.Queue, segq.check, segq.remove])
def test_a_path_that_is_a_file_is_no_queue(tmp_path: Path, call: Any) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(segq.NotAQueueError):
        call(place)
    assert place.read_text() == "mine"


@pytest.mark.parametrize("call", [segq.check, segq.remove])
def test_a_path_where_nothing_is_is_no_queue(tmp_path: Path, call: Any) -> None:
    with pytest.raises(segq.NotAQueueError, match="no queue"):
        call(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["file", ".hidden", "index", "ready_0000000000000000001_0123456789ab"])
def test_a_directory_with_foreign_content_is_refused_and_left_untouched(tmp_path: Path, name: str) -> None:
    place = tmp_path / "home"
    place.mkdir()
    (place / name).write_text("mine")
    before = contents(place)
    for call in (segq.Queue, segq.check, segq.remove):
        with pytest.raises(segq.NotAQueueError):
            call(place)
    assert contents(place) == before
    assert os.listdir(place) == [name]


def test_an_empty_directory_becomes_a_queue(tmp_path: Path) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    with segq.Queue(place) as q:
        q.put(1)
        assert q.get() == 1


def test_parents_are_made_and_a_relative_path_is_kept_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with segq.Queue("a/b/queue") as q:
        monkeypatch.chdir("/")
        q.put(1)
        assert q.get() == 1
    assert (tmp_path / "a/b/queue/queue.json").exists()


@pytest.mark.parametrize("version", [0, 2, 99, "2"])
def test_a_queue_of_another_format_version_is_refused_and_left_untouched(tmp_path: Path, version: Any) -> None:
    place = tmp_path / "queue"
    with segq.Queue(place) as q:
        q.put("precious")
    document = json.loads((place / "queue.json").read_text())
    (place / "queue.json").write_text(json.dumps({**document, "segq": version, "new": "field"}))
    before = contents(place)
    for call in (segq.Queue, segq.check, segq.remove, lambda path: segq.check(path, fix=True)):
        with pytest.raises(segq.FormatVersionError, match=f"version {version!r}"):
            call(place)
    assert contents(place) == before


def test_a_topic_is_not_a_queue(tmp_path: Path) -> None:
    place = tmp_path / "topic"
    segq.Queue(place).close()
    document = json.loads((place / "queue.json").read_text())
    (place / "queue.json").write_text(json.dumps({**document, "kind": "topic"}))
    with pytest.raises(segq.NotAQueueError, match="is a topic"):
        segq.Queue(place)


def test_a_conflicting_setting_is_named_and_changes_nothing(queue_path: str) -> None:
    segq.Queue(queue_path, capacity=10).close()
    before = contents(queue_path)
    for name, value in (("capacity", 11), ("serializer", "json"), ("lease", 5), ("max_bytes", 10), ("durability", "power")):
        with pytest.raises(segq.SettingsConflict, match=rf"\b{name}="):
            segq.Queue(queue_path, **{name: value})
    assert contents(queue_path) == before


def test_a_link_to_a_queue_is_the_queue(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "queue") as q:
        q.put(1)
    (tmp_path / "link").symlink_to(tmp_path / "queue")
    with segq.Queue(tmp_path / "link") as q:
        assert q.get() == 1


@pytest.mark.parametrize("name", ["with space", "ünïcödé", "quote'\"", "-dash", "new\nline", "x" * 200, "%d{}"])
def test_a_queue_may_be_called_anything(tmp_path: Path, name: str) -> None:
    with segq.Queue(tmp_path / name, segment_items=2) as q, segq.Queue(tmp_path / name) as consumer:
        for n in range(5):
            q.put(n)
        q.put_many(range(5000))
        assert consumer.get_many(10_000) == [*range(5), *range(5000)]


def test_a_path_that_is_not_valid_text_works_or_is_refused_by_name(tmp_path: Path) -> None:
    code = (
        "name = os.fsdecode(os.fsencode(sys.argv[1]) + b'/\\xff\\xfe')\n"
        "try:\n"
        "    with segq.Queue(name) as q:\n"
        "        q.put(1); q.put_many(range(5000)); say(len(q.get_many(10_000)))\n"
        "except segq.QueueError:\n"
        "    say('refused', os.path.exists(name))\n"
        "except Exception as error:\n"
        "    say(ascii(error))\n"
    )
    with Child(code, tmp_path, opens=False) as child:  # a report with such a path in it cannot be written
        assert child.ends().strip() in ("5001", "refused False")
