"""KTO beside TRL's KTOTrainer, on the same tiny model and batch: loss within 1e-5, gradient within 1e-4.

TRL's mismatched answer is the previous one of the batch (the first row takes the last); ours is drawn with the seed.
Here our units are given TRL's, so that both estimate the KL from the same sequences. Our side is a whole
`training_step`: the pass for the KL, the cut into micro-batches, and the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment.batching.groups import Group
from alignment.config import EvaluationConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data.views import Unpaired
from alignment.models.loading import load_tokenizer
from alignment.trainers.kto import KTOTrainer
from alignment.trainers.loss_settings import build_unpaired_loss
from tests.parity.bench import (
    PEER_ARGUMENTS,
    TINY,
    Measured,
    agree,
    distance,
    gradient,
    peer_model,
    text_rows,
)
from tests.trainers.pairs import some_pairs

trl = pytest.importorskip("trl")

# (pair, which of its answers): five desirable, three undesirable, and no two neighbours with the same prompt.
ANSWERS = [
    (0, "chosen"),
    (1, "rejected"),
    (2, "chosen"),
    (3, "chosen"),
    (4, "rejected"),
    (5, "chosen"),
    (0, "rejected"),
    (1, "chosen"),
]
ALL = range(len(ANSWERS))
SETTINGS = {"beta": 0.3, "desirable_weight": 1.7, "undesirable_weight": 0.6}


def text_answers(answers: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    pairs = text_rows()
    return [
        {"prompt": pairs[number]["prompt"], "completion": pairs[number][kind], "label": kind == "chosen"}
        for number, kind in answers
    ]


class Bench:
    """Both trainers with one policy, one reference and one batch.

    Args:
        moved: "policy" or "reference": which of the two models is shifted off the other. To exchange them changes the
            sign of every log-ratio, and so of the KL.
    """

    def __init__(self, folder: Any, moved: str) -> None:
        import datasets
        from trl import KTOConfig

        self.trainer = self.our_trainer(folder / "ours", moved)
        arguments = PEER_ARGUMENTS | {"per_device_train_batch_size": len(ANSWERS)}
        self.peer = trl.KTOTrainer(
            model=peer_model(self.trainer),
            ref_model=peer_model(self.trainer.reference),
            args=KTOConfig(output_dir=str(folder / "trl"), **arguments),
            train_dataset=datasets.Dataset.from_list(text_answers(ANSWERS)),
            processing_class=load_tokenizer(TINY),
        )
        self.peer.model.eval()
        self.batch = self.peer._prepare_inputs(next(iter(self.peer.get_train_dataloader())))
        self.units = [
            replace(unit, aside=(group_of(self.batch, row, "KL_"),))
            for row, unit in enumerate(self.trainer.train_units)
        ]

    @staticmethod
    def our_trainer(folder: Any, moved: str) -> KTOTrainer:
        config = RunConfig(
            method="kto",
            model=TINY,
            peft=PeftConfig(method="none"),
            # The budget cuts the step into several micro-batches.
            training=TrainingConfig(batch_size=len(ANSWERS), max_steps=1, token_budget=100, bf16=False),
            evaluation=EvaluationConfig(prompts=0),
            loss={"name": "kto"},
        )
        pairs = some_pairs()
        answers = [
            Unpaired(f"{number}:{kind}", pairs[number].prompt, getattr(pairs[number], kind), kind == "chosen")
            for number, kind in ANSWERS
        ]
        trainer = KTOTrainer(config=config, train=answers, eval=answers, folder=folder)
        shifted: Any = trainer.model if moved == "policy" else trainer.reference.model  # type: ignore[union-attr]
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in sorted(shifted.named_parameters()):
                if "mlp" in name:
                    parameter.add_(0.05 * torch.randn(parameter.shape))
        return trainer

    def ours(self, rows: Sequence[int] = ALL, **settings: Any) -> Measured:
        """Loss and gradient of a step over these rows of the batch; the sum is divided by the length of ANSWERS."""
        self.trainer.loss = build_unpaired_loss({"name": "kto"} | SETTINGS | settings)
        self.trainer.model.zero_grad()
        loss = self.trainer.training_step(self.trainer.model, {"units": [self.units[row] for row in rows]})
        return float(loss), gradient(self.trainer.model)

    def theirs(self, rows: Sequence[int] = ALL, with_kl: bool = True, **settings: Any) -> Measured:
        """The same from TRL, as its mean over the rows; without the KL it puts 0 in its place."""
        for name, value in (SETTINGS | settings | {"calculate_KL": with_kl}).items():
            assert hasattr(self.peer, name), name
            setattr(self.peer, name, value)
        self.peer.model.zero_grad()
        loss = self.peer.compute_loss(self.peer.model, {name: value[list(rows)] for name, value in self.batch.items()})
        loss.backward()
        return float(loss.detach()), gradient(self.peer.model)

    @property
    def their_kl(self) -> float:
        """TRL's KL of the last measurement, held at 0 or above."""
        return self.peer._metrics["eval"]["kl"][-1]

    @property
    def our_kl(self) -> float:
        """Ours, before it is held at 0."""
        assert self.trainer.statistic is not None
        return float(self.trainer.statistic)


def group_of(batch: dict[str, Tensor], row: int, prefix: str = "") -> Group:
    """Prompt and completion of a row of TRL's batch, as token ids."""
    ids = batch[f"{prefix}input_ids"][row][batch[f"{prefix}attention_mask"][row].bool()].tolist()
    start = len(ids) - int(batch[f"{prefix}completion_mask"][row].sum())
    return Group(tuple(ids[:start]), (tuple(ids[start:]),))


def scaled(measured: Measured, factor: float) -> Measured:
    loss, grads = measured
    return factor * loss, {name: factor * value for name, value in grads.items()}


@pytest.fixture(scope="module")
def negative(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """With a KL below 0."""
    return Bench(tmp_path_factory.mktemp("negative"), "policy")


@pytest.fixture(scope="module")
def positive(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """With a KL above 0."""
    return Bench(tmp_path_factory.mktemp("positive"), "reference")


def test_both_score_the_same_tokens(positive: Bench) -> None:
    """The answers, their labels, and the mismatched answers: a row's is the previous row's, the first's the last's."""
    assert positive.batch["label"].tolist() == [kind == "chosen" for _, kind in ANSWERS]
    for row, unit in enumerate(positive.units):
        assert unit.groups == (group_of(positive.batch, row),)
        assert unit.values["desirable"] == positive.batch["label"][row]
        previous = positive.units[row - 1].groups[0]
        assert unit.aside == (Group(unit.groups[0].prompt, previous.completions),)
        assert previous.prompt != unit.groups[0].prompt
    assert len(positive.trainer.micro_batches(positive.units)) > 1


WEIGHTS: dict[str, dict[str, float]] = {
    "unequal": {},
    "the other way round": {"desirable_weight": 0.5, "undesirable_weight": 2.0},
    "equal, small beta": {"beta": 0.05, "desirable_weight": 1.0, "undesirable_weight": 1.0},
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_positive_kl(case: str, positive: Bench) -> None:
    theirs = positive.theirs(**WEIGHTS[case])
    agree(positive.ours(**WEIGHTS[case]), theirs)
    assert positive.our_kl == pytest.approx(positive.their_kl, abs=1e-5)
    assert positive.our_kl > 0.1
    loss, grads = distance(positive.theirs(with_kl=False, **WEIGHTS[case]), theirs)
    assert loss > 1e-3 and grads > 1e-2  # so a wrong KL would show


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_negative_kl_is_held_at_zero(case: str, negative: Bench) -> None:
    agree(negative.ours(**WEIGHTS[case]), negative.theirs(**WEIGHTS[case]))
    assert negative.our_kl < -0.1 and negative.their_kl == 0
    agree(negative.ours(**WEIGHTS[case]), negative.theirs(with_kl=False, **WEIGHTS[case]))


@pytest.mark.parametrize("desirable", [True, False])
def test_a_step_of_one_kind(desirable: bool, positive: Bench) -> None:
    """TRL takes the mean over the rows that there are; ours divides the sum by `batch_size`, the number of examples in
    every step, so that an example weighs the same wherever it falls. Hence the factor for these few rows."""
    rows = [row for row, (_, kind) in enumerate(ANSWERS) if (kind == "chosen") == desirable]
    agree(scaled(positive.ours(rows), len(ANSWERS) / len(rows)), positive.theirs(rows))
    assert max(positive.our_kl, 0.0) == pytest.approx(positive.their_kl, abs=1e-5)


@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_trls_kl_is_that_of_a_micro_batch(sign: str, request: pytest.FixtureRequest) -> None:
    """TRL's fault: with gradient accumulation it estimates the KL, and holds it at 0, for each micro-batch, so the cut
    changes the update. With the KL left out its halves make up its whole, so nothing else does. Ours is the KL of the
    step: the same however the step is cut, and TRL's where TRL does not cut."""
    bench: Bench = request.getfixturevalue(sign)
    half = len(ANSWERS) // 2

    def in_halves(with_kl: bool) -> Measured:
        (a, first), (b, second) = (bench.theirs(rows, with_kl) for rows in (ALL[:half], ALL[half:]))
        return scaled((a + b, {name: first[name] + second[name] for name in first}), 0.5)

    agree(in_halves(with_kl=False), bench.theirs(with_kl=False))
    whole = bench.theirs()
    loss, grads = distance(in_halves(with_kl=True), whole)
    assert loss > 1e-3 and grads > 1e-2

    training = bench.trainer.config.training
    budget, pieces = training.token_budget, set()
    try:
        for training.token_budget in (60, budget, 4096):
            pieces.add(len(bench.trainer.micro_batches(bench.units)))
            agree(bench.ours(), whole)
    finally:
        training.token_budget = budget
    assert len(pieces) > 1


def test_trls_mismatched_answer_may_be_a_matched_one(positive: Bench) -> None:
    """TRL's fault: it takes the neighbour's answer without a look at the prompts, so where answers to one prompt stand
    side by side the KL is estimated on a matched answer, and in a last batch of one row on that very row. Ours is
    always an answer to another prompt, where there is one."""
    import datasets

    answers = [(number, kind) for number in range(4) for kind in ("chosen", "rejected")] + [(4, "chosen")]
    dataset = datasets.Dataset.from_list(text_answers(answers))
    rows = list(positive.peer._prepare_dataset(dataset, positive.peer.processing_class, positive.peer.args, "eval"))
    assert rows[1]["prompt_ids"] == rows[0]["prompt_ids"]
    assert rows[1]["KL_completion_ids"] == rows[0]["completion_ids"]
    assert rows[-1]["KL_completion_ids"] == rows[-1]["completion_ids"]

    units = positive.trainer.train_units  # as our trainer made them
    prompts = {unit.groups[0].completions: unit.groups[0].prompt for unit in units}
    for unit in units:
        assert unit.aside[0].prompt == unit.groups[0].prompt != prompts[unit.aside[0].completions]
