"""Kafka topics into a queue, and a queue into a Kafka topic; needs `pip install 'segq[kafka]'`.

`KafkaSource` reads topics as a member of a consumer group and puts every record; an offset is committed after its record is
in the queue, so a death in between repeats records and loses none, and repeats are dropped on the way in. `KafkaSink` sends
every item and acknowledges it after the broker has confirmed it. What each hop guarantees: docs/kafka.md.
"""

from segq.connectors.kafka.client import KafkaConnectorError
from segq.connectors.kafka.intake import SourceCounts
from segq.connectors.kafka.record import Record
from segq.connectors.kafka.sink import KafkaSink, SinkCounts
from segq.connectors.kafka.source import KafkaSource

__all__ = ["KafkaConnectorError", "KafkaSink", "KafkaSource", "Record", "SinkCounts", "SourceCounts"]
