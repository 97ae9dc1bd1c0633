"""Whatever is done in whatever order, a queue behaves as its model says."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import LoneConsumerMachine, QueueMachine

MACHINES = pytest.mark.parametrize("machine", [QueueMachine, LoneConsumerMachine])
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


@MACHINES
def test_a_queue_behaves_as_its_model(machine: type[QueueMachine]) -> None:
    short = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=SLOW)
    run_state_machine_as_test(machine, settings=short)


@pytest.mark.torture
@MACHINES
def test_a_queue_behaves_as_its_model_for_long(machine: type[QueueMachine]) -> None:
    long = settings(max_examples=400, stateful_step_count=80, deadline=None, suppress_health_check=SLOW, database=None)
    run_state_machine_as_test(machine, settings=long)
