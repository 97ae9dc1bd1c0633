"""Whatever is done in whatever order, and whenever, a topic behaves as its model says."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from topic_machine import LoneConsumerMachine, TopicMachine

MACHINES = pytest.mark.parametrize("machine", [TopicMachine, LoneConsumerMachine])
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


@MACHINES
def test_a_topic_behaves_as_its_model(machine: type[TopicMachine]) -> None:
    short = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=SLOW)
    run_state_machine_as_test(machine, settings=short)


@pytest.mark.torture
@MACHINES
def test_a_topic_behaves_as_its_model_for_long(machine: type[TopicMachine]) -> None:
    class Thorough(machine):  # type: ignore[misc, valid-type]
        thorough = True

    long = settings(max_examples=150, stateful_step_count=80, deadline=None, suppress_health_check=SLOW, database=None)
    run_state_machine_as_test(Thorough, settings=long)
