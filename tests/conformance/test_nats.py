"""What only the NATS engine has: logins, TLS, dead letters beside the stream, signs of life, message ids."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import shutil
import ssl
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, until
from nats_server import Server, binary

import segq

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(binary() is None, reason="there is no nats-server on this machine (.ci/nats-server installs one)"),
]


@pytest.fixture
def address(nats_server: Server) -> str:
    return f"{nats_server.url}/{uuid.uuid4().hex[:12]}"


def test_what_is_in_hand_stays_so_as_long_as_its_process_gives_signs_of_life(address: str) -> None:
    with segq.connect(address, grace=0.6) as q:
        q.put("long work")
        message = q.receive(timeout=10)
        with pytest.raises(segq.Empty):
            q.receive(timeout=2.0)
        message.ack()
        assert q.stats().items == 0


def test_the_keys_under_which_a_stream_and_a_label_describe_themselves_stay_the_same(nats_server: Server, address: str) -> None:
    """Streams of earlier versions carry them."""
    import nats

    async def keys() -> set[str]:
        client = await nats.connect(nats_server.url)
        stream = next(each.config for each in await client.jetstream().streams_info() if topic_name in (each.config.name or ""))
        consumers = await client.jetstream().consumers_info(stream.name)
        await client.close()
        return {*(stream.metadata or {}), *(key for each in consumers for key in each.config.metadata or {})}

    topic_name = address.rsplit("/", 1)[1]
    with segq.connect(address, "topic") as topic, topic.subscribe("mail"):
        found = asyncio.run(keys())
    assert {key for key in found if key.startswith("segq")} == {"segq.version", "segq.kind", "segq.settings", "segq.label"}


def test_a_publish_that_is_sent_again_is_stored_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from segq.engines.nats.connection import Connection

    with segq.connect(address) as q:
        ask, forgotten = Connection.ask, []

        async def forgetful(self: Connection, subject: str, *arguments: Any, **options: Any) -> Any:
            answer = await ask(self, subject, *arguments, **options)
            if subject.startswith("segq.") and len(forgotten) < 1:
                forgotten.append(answer)
                return None
            return answer

        monkeypatch.setattr(Connection, "ask", forgetful)
        q.put("once")
        forgotten.clear()
        q.put_many(["twice", "thrice"])
        assert len(forgotten) == 1
        assert q.get_many(9, timeout=10) == ["once", "twice", "thrice"]


def test_no_confirmation_is_said_to_be_one_that_may_be_stored(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from segq.engines.nats.connection import Connection

    with segq.connect(address, patience=0.5) as q:

        async def deaf(_self: Connection, _subject: str, *_arguments: Any, **_options: Any) -> None:
            await asyncio.sleep(0.05)

        with monkeypatch.context() as patched:
            patched.setattr(Connection, "ask", deaf)
            with pytest.raises(segq.UnreachableError, match="may be stored or not"):
                q.put("lost?")
            with pytest.raises(ConnectionError):
                q.put_many(["lost?"])
        q.put("sure")
        assert q.get(timeout=10) == "sure"


def test_a_stream_of_somebody_elses_is_left_alone(address: str) -> None:
    import nats

    server, _, name = address.rpartition("/")

    async def make() -> None:
        client = await nats.connect(server)
        await client.jetstream().add_stream(name=name, subjects=["theirs"])
        await client.close()

    asyncio.run(make())
    for touch in (segq.connect, segq.remove, segq.kind_of):
        with pytest.raises(segq.NotAQueueError, match="segq did not make"):
            touch(address)


def test_pickles_are_read_only_by_those_who_ask_for_it(address: str) -> None:
    with segq.connect(address, serializer="pickle") as q:
        q.put({1, 2})
        with pytest.raises(segq.SettingsError, match="pickle"):
            segq.connect(address)
        assert q.get(timeout=10) == {1, 2}


def test_what_cannot_be_decoded_is_set_aside_and_the_rest_flows(address: str) -> None:
    import nats

    server, _, name = address.rpartition("/")

    async def intrude() -> None:
        client = await nats.connect(server)
        await client.jetstream().publish(f"segq.{name}", b"\xc1")
        await client.close()

    with segq.connect(address) as q:
        q.put("before")
        asyncio.run(intrude())
        q.put("after")
        assert q.get_many(9, timeout=10) == ["before", "after"]
        assert len(q.dead) == 1


def test_a_forked_child_has_a_connection_of_its_own(address: str) -> None:
    with segq.connect(address) as q:
        q.put("before")
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(q,))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert q.get_many(9, timeout=10) == ["from the child"]
        q.put("after")
        assert q.get(timeout=10) == "after"


def _in_child(q: Any) -> None:
    assert q.get(timeout=20) == "before"
    q.put("from the child")


def test_there_is_one_background_thread_for_all_handles(address: str) -> None:
    import threading

    with segq.connect(address), segq.connect(address + "-2"), segq.connect(address + "-3", "topic"):
        assert [thread.name for thread in threading.enumerate()].count("segq nats") == 1


@pytest.mark.parametrize(
    ("config", "login", "wrong"),
    [
        ('authorization { token: "s3cret" }\n', {"token": "s3cret"}, {"token": "guess"}),
        ('authorization { user: "me", password: "s3cret" }\n', {"user": "me", "password": "s3cret"}, {}),
    ],
)
def test_logins(config: str, login: dict[str, str], wrong: dict[str, str]) -> None:
    with Server(config=config) as server:
        with segq.connect(f"{server.url}/q", **login) as q:  # type: ignore[arg-type]
            q.put(1)
            assert "s3cret" not in repr(q)
        with pytest.raises(segq.UnreachableError, match=r"(?i)authorization"):
            segq.connect(f"{server.url}/q", connect_timeout=2, **wrong)  # type: ignore[arg-type]
        user = "me:s3cret" if "user" in login else "s3cret"
        with segq.connect(f"nats://{user}@127.0.0.1:{server.port}/q") as q:
            assert "s3cret" not in q.path
            assert q.get(timeout=10) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    with Server(config=f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n') as server:
        host = f"127.0.0.1:{server.port}"
        with segq.connect(f"tls://{host}/q?tls_ca={certificate}") as q:
            q.put("secret")
            assert q.get(timeout=10) == "secret"
        with segq.connect(f"nats://{host}/q", tls=ssl.create_default_context(cafile=str(certificate))) as q:
            q.put("secret")
        with pytest.raises(segq.UnreachableError, match=r"(?i)certificate"):
            segq.connect(f"tls://{host}/q", connect_timeout=2)
        with pytest.raises(segq.SettingsError, match="tls_ca"):
            segq.connect(f"tls://{host}/q", tls_ca=str(tmp_path / "missing"))


def test_a_server_that_is_not_there_is_said_to_be() -> None:
    begun = time.monotonic()
    with pytest.raises(segq.UnreachableError, match="no NATS server answers"):
        segq.connect("nats://127.0.0.1:1/q", connect_timeout=0.5)
    assert time.monotonic() - begun < 20


def test_a_handle_outlives_its_server() -> None:
    with Server() as server, segq.connect(f"{server.url}/q", patience=1.5) as q:
        q.put("kept")
        server.kill()
        for use in (lambda: q.put("lost"), lambda: q.get(block=False), q.stats, lambda: q.get(timeout=20)):
            with pytest.raises(segq.UnreachableError):
                use()
        server.start().wait()
        got: list[Any] = []
        until(lambda: _try(lambda: got.append(q.get(timeout=1))), 30, "it is back")
        assert got[0] == "kept"


def _try(work: Any) -> bool:
    try:
        work()
    except (segq.UnreachableError, segq.Empty):
        return False
    return True


def test_a_handle_that_is_dropped_gives_back_what_it_held(address: str) -> None:
    with segq.connect(address, grace=60) as q:
        q.put("held")
        segq.connect(address).receive(timeout=10)
        gc.collect()
        assert q.receive(timeout=20).deliveries == 2


def test_a_batch_of_large_items_is_one_write_all_the_same(address: str) -> None:
    with segq.connect(address) as q:
        items = [bytes([n]) * 800_000 for n in range(60)]
        q.put_many(items)
        got: list[bytes] = []
        while len(got) < 60:
            got += q.get_many(60, timeout=20)
        assert got == items
        with pytest.raises(segq.ItemTooLarge):
            q.put(b"x" * (1 << 20))


def test_the_benchmark_runs() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.engines", "--rounds", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "NATS, three replicas" in ended.stdout
    assert "cost of the layer" in ended.stdout
