"""`segq.metrics`: what Prometheus is told agrees with the queue, and is what its own parser and linter expect."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cli_command import PATIENCE, SEGQ, environment, segq

import segq as library

pytestmark = pytest.mark.external
prometheus = pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")


def value(registry: object, name: str, **labels: str) -> float | None:
    found: float | None = registry.get_sample_value(name, labels)  # type: ignore[attr-defined]
    return found


def test_the_figures_are_those_of_the_queues(queue_path: str, tmp_path: Path) -> None:
    from segq.metrics import Collector

    news, missing = str(tmp_path / "news"), str(tmp_path / "missing")
    with library.Queue(queue_path, capacity=100) as q, library.Topic(news) as topic, topic.subscribe("mail") as mail:
        registry = prometheus.CollectorRegistry()
        registry.register(Collector(queue_path, news, missing))
        assert value(registry, "segq_up", queue=missing) == 0
        assert value(registry, "segq_up", queue=queue_path) == 1
        q.put_many(range(10))
        q.get_many(3)
        message = q.receive()
        topic.put_many(range(6))
        mail.get_many(2)
        here = {"queue": queue_path}
        for name, expected in [
            ("segq_items", 7), ("segq_waiting_items", 6), ("segq_claimed_items", 1), ("segq_capacity_items", 100),
            ("segq_puts_total", 10), ("segq_gets_total", 4), ("segq_acks_total", 3), ("segq_rescues_total", 0),
            ("segq_payload_bytes", None), ("segq_dead_letter_items", None), ("segq_shut_down", 0),
        ]:  # fmt: skip
            assert value(registry, name, **here) == expected, name
        assert (value(registry, "segq_oldest_item_age_seconds", **here) or 0) < 60
        assert value(registry, "segq_segments", **here, state="loading") == 1
        assert value(registry, "segq_processes", **here, role="consumer") == 1
        label = {"queue": news, "label": "mail"}
        assert value(registry, "segq_label_lag_items", **label) == 4
        assert value(registry, "segq_label_acks_total", **label) == 2
        assert value(registry, "segq_label_missed_items_total", **label) == 0
        message.ack()
        assert value(registry, "segq_acks_total", **here) == 4


def test_names_keep_to_the_habits_of_prometheus() -> None:
    from segq.metrics import Collector

    families = list(Collector("/nowhere").describe())
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert re.fullmatch(r"segq_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|millis|kb|mb|percent|minutes|total|count)$", family.name)


def test_a_collector_needs_queues_and_each_once() -> None:
    from segq.metrics import Collector

    with pytest.raises(library.SettingsError, match="one queue or more"):
        Collector()
    with pytest.raises(library.SettingsError, match="each once"):
        Collector("a", "./a")


def test_the_command_serves_them(queue_path: str) -> None:
    with library.Queue(queue_path) as q:
        q.put_many(range(5))
    serving = subprocess.Popen(
        [*SEGQ, "metrics", queue_path, "--port", "0", "--interval", "0.05"],
        stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    from prometheus_client.parser import text_string_to_metric_families

    try:
        assert serving.stderr is not None
        url = re.search(r"http://127\.0\.0\.1:\d+/metrics", serving.stderr.readline())
        assert url is not None
        with urllib.request.urlopen(url[0], timeout=PATIENCE) as answer:
            text = answer.read().decode()
        parsed = {family.name: family for family in text_string_to_metric_families(text)}
        assert parsed["segq_items"].samples[0].value == 5
        assert parsed["segq_items"].samples[0].labels == {"queue": queue_path}
        assert parsed["segq_puts"].type == "counter"
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(PATIENCE) == 0
    finally:
        serving.kill()
        serving.communicate()


def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client").mkdir()
    (tmp_path / "prometheus_client" / "__init__.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, "-m", "segq", "metrics", "q"], capture_output=True, text=True, env=environment(PYTHONPATH=path)
    )
    assert ended.returncode == 1
    assert "pip install 'segq[metrics]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_said(queue_path: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = segq("metrics", queue_path, "--port", taken.getsockname()[1])
    assert ended.returncode == 1
    assert b"in use" in ended.stderr


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    from segq.metrics import Collector

    dashboard = (Path(library.__file__).parent.parent / "examples" / "grafana" / "segq.json").read_text()
    families = list(Collector("/nowhere").describe())
    known = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    asked = set(re.findall(r"\bsegq_[a-z_]+", " ".join(
        target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel.get("targets", [])
    )))  # fmt: skip
    assert asked
    assert asked <= known
