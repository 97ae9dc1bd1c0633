"""What the source and the sink have in common: the client library, its settings, its errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import segq

log = logging.getLogger("segq.kafka")

_SAME_AGAIN_SECONDS = 30.0  # an error that goes on is said this often


class KafkaConnectorError(segq.QueueError):
    """Kafka says that going on is of no use: a setting that cannot work, or an error its client calls fatal.

    Nothing is lost by it: records that were not stored are read again, items that were not confirmed are given back.
    """


def library() -> Any:
    """`confluent_kafka`; raises ModuleNotFoundError with the remedy."""
    try:
        import confluent_kafka
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the Kafka connectors need confluent-kafka: pip install 'segq[kafka]'", name="confluent_kafka"
        ) from error
    return confluent_kafka


def brokers_text(brokers: str | Sequence[str]) -> str:
    text = brokers if isinstance(brokers, str) else ",".join(brokers)
    if not text.strip():
        raise segq.SettingsError('brokers must name at least one Kafka broker, like "localhost:9092"')
    return text


def positive(name: str, value: Any, kind: type[int | float]) -> Any:
    """`value`, if it is a number of that kind greater than 0; raises SettingsError naming the setting."""
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not value > 0:
        what = "whole number" if kind is int else "number of seconds"
        raise segq.SettingsError(f"{name} must be a {what} greater than 0, not {value!r}")
    return kind(value)


def made(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A client of the library; what librdkafka logs goes to the logger `segq.kafka`."""
    kafka = library()
    try:
        return kind(dict(settings), logger=log)
    except kafka.KafkaException as error:
        raise KafkaConnectorError(f"Kafka's client refuses its settings: {error.args[0].str()}") from error


_OF_CONNECTION = (
    "bootstrap.", "client.", "security.", "sasl.", "ssl.", "enable.ssl", "socket.", "broker.", "metadata.", "oauth", "https.",
)  # fmt: skip


def connection_only(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a consumer's settings those that an administrative client takes."""
    return {name: value for name, value in settings.items() if name.startswith(_OF_CONNECTION)}


class Complaints:
    """Errors of the client, which it goes on after by itself: logged, an error that stays now and then; fatal ones are kept."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._said: dict[int, float] = {}
        self._fatal: Any = None

    def hear(self, error: Any) -> None:
        """The client's `error_cb`, and whatever else comes as a KafkaError."""
        if error.fatal():
            self._fatal = error
        now = time.monotonic()
        if now - self._said.get(error.code(), -_SAME_AGAIN_SECONDS) >= _SAME_AGAIN_SECONDS:
            self._said[error.code()] = now
            log.warning("%s: %s", self._who, error.str(), extra={"kafka_error": error.name()})

    def refuse_fatal(self) -> None:
        if self._fatal is not None:
            raise KafkaConnectorError(f"{self._who}: {self._fatal.str()}")
