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
