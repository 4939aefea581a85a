"""Running means of metrics over micro-batches."""

from __future__ import annotations

import pytest
import torch

from alignment.trainers.metrics import MetricSums


class _OneProcess:
    num_processes, device = 1, torch.device("cpu")


def test_means_are_over_examples_and_not_over_micro_batches() -> None:
    sums = MetricSums()
    sums.add({"reward": torch.tensor([1.0, 2.0, 3.0])})
    sums.add({"reward": torch.tensor([10.0])})
    means, host = sums.means(_OneProcess(), tokens=7)
    assert means == {"reward": pytest.approx(4.0)} and host == {"tokens": 7.0}


def test_a_loss_without_metrics_has_no_means() -> None:
    sums = MetricSums()
    sums.add({})
    assert sums.means(_OneProcess()) == ({}, {})


def test_a_metric_that_not_every_example_has_is_a_mean_over_those_that_do() -> None:
    sums = MetricSums()
    sums.add({"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([2.0, 4.0])}, {"a": torch.tensor([True, False])})
    sums.add({"a": torch.tensor([7.0]), "b": torch.tensor([6.0])}, {"a": torch.tensor([False])})
    assert sums.means(_OneProcess())[0] == {"a": pytest.approx(1.0), "b": pytest.approx(4.0)}
    never = MetricSums()
    never.add({"a": torch.tensor([1.0])}, {"a": torch.tensor([False])})
    assert never.means(_OneProcess())[0] == {}
