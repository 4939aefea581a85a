"""PIT's gap reward model: its four orderings, what it learns on a known quality, and its use as feedback."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.batching.units import FOUR_ORDERINGS, gap_units, pair_units, separator
from alignment.config import DataConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data.views import Pair
from alignment.errors import UserError
from alignment.evaluation.export import export
from alignment.evaluation.held_out_gaps import HeldOutGaps, changes
from alignment.feedback.adapters import Function, as_judge, as_reward
from alignment.feedback.build import build_feedback
from alignment.feedback.gap import GapReward, RewardGap, as_gap
from alignment.feedback.trained import RewardModel
from alignment.models.loading import load_tokenizer
from alignment.trainers.gap_model import GapTrainer
from alignment.trainers.loss_settings import build_gap_loss
from tests.trainers.pairs import some_pairs

PROMPTS = [pair.prompt for pair in some_pairs()]
CHOSEN = [pair.chosen[0]["content"] for pair in some_pairs()]
REJECTED = [pair.rejected[0]["content"] for pair in some_pairs()]


def config(peft: str = "lora", steps: int = 3, **training: Any) -> RunConfig:
    return RunConfig(
        method="pit_gap",
        model=ModelConfig(path="tiny"),
        data=DataConfig(eval_fraction=0.0),
        peft=PeftConfig(method=peft, r=4),
        loss={"name": "gap"},
        training=TrainingConfig(**{"learning_rate": 1e-3, "batch_size": 6, "bf16": False, **training}, max_steps=steps),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[GapTrainer, Path]:
    folder = tmp_path_factory.mktemp("gap")
    run = GapTrainer(config=config(), train=some_pairs(), folder=folder)
    run.train()
    run.save_policy(folder / "model")
    run.model.eval()
    return run, folder


def test_the_four_orderings_share_the_prompt_in_one_row() -> None:
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    units, counts = gap_units(some_pairs(), tokenizer, DataConfig())
    plain, _ = pair_units(some_pairs(), tokenizer, DataConfig())
    between = separator(tokenizer)
    assert counts.kept == len(units) == 6
    for unit, pair in zip(units, plain, strict=True):
        (group,), (good, bad) = unit.groups, pair.groups[0].completions
        assert group.prompt == pair.groups[0].prompt and unit.values["longer"] == len(good) - len(bad)
        # wl, ww, ll, lw: the candidate is the first letter and stands last, behind its reference.
        orderings = [(bad, good), (good, good), (bad, bad), (good, bad)]
        assert group.completions == tuple(reference + between + candidate for reference, candidate in orderings)
    assert len(FOUR_ORDERINGS) == 4


def test_an_answer_over_the_limit_is_cut_from_the_right_and_counted() -> None:
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    whole, _ = pair_units(some_pairs(), tokenizer, DataConfig())
    units, counts = gap_units(some_pairs(), tokenizer, DataConfig(max_completion_length=8))
    assert counts.truncated > 0
    for unit in units:
        good, bad = next(pair.groups[0].completions for pair in whole if pair.id == unit.id)
        assert unit.groups[0].completions[0] == bad[:8] + separator(tokenizer) + good[:8]


SIZES = ["tiny", "small", "big", "huge"]
THINGS = ["dog", "house", "tree", "boat", "stone", "cake", "book", "hat"]


def sized(count: int, seed: int) -> list[Pair]:
    """Answers of a known quality: the bigger thing is the better one."""
    draw, found = random.Random(seed), []
    for number in range(count):
        low, high = sorted(draw.sample(range(len(SIZES)), 2))
        sides = [f"A {SIZES[size]} {draw.choice(THINGS)}." for size in (high, low)]
        prompt = draw.choice(["What do you see?", "Name a thing.", "What is there?"])
        answers = [[{"role": "assistant", "content": text}] for text in sides]
        found.append(Pair(f"{seed}-{number}", [{"role": "user", "content": prompt}], *answers))
    return found


def test_the_order_of_a_known_quality_is_recovered(tmp_path: Path) -> None:
    run = GapTrainer(config=config("none", 24, batch_size=12), train=sized(160, 1), eval=sized(80, 2), folder=tmp_path)
    end = HeldOutGaps(run)
    before = end.ask()
    run.train()
    found = end.table(before, end.ask())
    shares = {name: entry["after"] for name, entry in found["gaps"].items()}
    assert all(shares[name] > 0.95 for name in ("wl > ww", "wl > ll", "wl > lw", "ww > lw", "ll > lw")), shares
    assert shares["all five"] > 0.9 > found["gaps"]["all five"]["before"]
    assert found["ranking"]["after"] == shares["wl > lw"] and found["gaps"]["all five"]["ci95"][0] > 0
    assert {"calibration", "by_length"} <= found.keys()


def test_what_the_report_counts() -> None:
    before = [[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.5, -1.0]]
    after = [[2.0, 0.0, 1.0, -1.0], [2.0, 3.0, 0.5, -1.0]]
    found = changes(before, after)
    assert (found["wl > ww"]["before"], found["wl > ww"]["after"]) == (0.75, 0.5)  # a tie is one half
    assert (found["all five"]["before"], found["all five"]["after"]) == (0.5, 0.5)
    assert (found["|ww - ll|"]["before"], found["|ww - ll|"]["after"]) == (0.25, 1.75)
    assert "after_ci95" not in found["|ww - ll|"] and found["wl > lw"]["pairs"] == 2


def test_the_feedback_scores_as_the_trainer_does_plain_and_exported(trained: tuple[GapTrainer, Path]) -> None:
    run, folder = trained
    from alignment.batching.packing import pack

    with torch.no_grad():
        expected = run.gaps(run.model, run.train_units, pack([unit.groups[0] for unit in run.train_units]))
    sides = {"w": CHOSEN, "l": REJECTED}
    for path in (folder, export(folder, folder / "plain")):
        model = GapReward(str(path))
        for place, (candidate, reference) in enumerate(("wl", "ww", "ll", "lw")):
            found = model.gap(PROMPTS, sides[candidate], sides[reference])
            assert found == pytest.approx(expected[:, place].tolist(), abs=1e-5)
    assert (expected[:, 0] - expected[:, 3]).abs().min() > 1e-3
    # Rows of one prompt share it in a row, and are what they are alone.
    together = model.gap([PROMPTS[0]] * 3, CHOSEN[:3], REJECTED[:3])
    alone = [model.gap([PROMPTS[0]], [CHOSEN[row]], [REJECTED[row]])[0] for row in range(3)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_it_is_a_reward_over_a_reference_and_an_antisymmetric_judge(trained: tuple[GapTrainer, Path]) -> None:
    model = build_feedback({"name": "gap_reward", "path": str(trained[1])})
    assert as_reward(model) is as_judge(model) is as_gap(model) is model
    context = [{"reference": text} for text in REJECTED]
    assert model.score(PROMPTS, CHOSEN, context) == model.gap(PROMPTS, CHOSEN, REJECTED)
    there, back = model.prefer(PROMPTS, CHOSEN, REJECTED), model.prefer(PROMPTS, REJECTED, CHOSEN)
    assert [a + b for a, b in zip(there, back, strict=True)] == [1.0] * len(there)
    assert model.prefer(PROMPTS, CHOSEN, CHOSEN) == [0.5] * len(there)
    gaps = zip(model.gap(PROMPTS, CHOSEN, REJECTED), model.gap(PROMPTS, REJECTED, CHOSEN), strict=True)
    expected = [1 / (1 + float(torch.tensor(back - there).exp())) for there, back in gaps]
    assert there == pytest.approx(expected, abs=1e-5)
    for bad in (None, [{}] * len(PROMPTS), [{"reference": ["a", "b"]}] * len(PROMPTS)):
        with pytest.raises(UserError, match='gap_reward: row 1 has no context\\["reference"\\]'):
            model.score(PROMPTS, CHOSEN, bad)


def test_a_prompt_that_is_too_long_has_no_verdict(trained: tuple[GapTrainer, Path]) -> None:
    model = GapReward(str(trained[1]), max_prompt_length=40)
    long = [{"role": "user", "content": "word " * 200}]
    found = model.gap([PROMPTS[0], long], CHOSEN[:2], REJECTED[:2])
    assert found[0] == found[0] and found[1] != found[1] and model.counts == {"prompt too long": 1}


def test_the_difference_of_two_rewards_has_the_same_interface() -> None:
    gap = as_gap(build_feedback({"name": "reward_gap", "of": "length"}))
    assert isinstance(gap, RewardGap) and isinstance(as_gap(Function(lambda *row: 0.0)), RewardGap)
    lengths = build_feedback("length").score(PROMPTS, CHOSEN), build_feedback("length").score(PROMPTS, REJECTED)
    expected = [new - old for new, old in zip(*lengths, strict=True)]
    assert gap.gap(PROMPTS, CHOSEN, REJECTED) == expected and any(expected)
    assert gap.gap(PROMPTS, CHOSEN, CHOSEN) == [0.0] * len(PROMPTS)
    assert gap.score(PROMPTS, CHOSEN, [{"reference": text} for text in REJECTED]) == expected
    there, back = gap.prefer(PROMPTS, CHOSEN, REJECTED), gap.prefer(PROMPTS, REJECTED, CHOSEN)
    assert [a + b for a, b in zip(there, back, strict=True)] == pytest.approx([1.0] * len(there))


def test_kinds_of_models_are_told_apart(trained: tuple[GapTrainer, Path]) -> None:
    card = json.loads((trained[1] / "model" / "scorer.json").read_text())
    assert card["kind"] == "gap"
    with pytest.raises(UserError, match="is a gap model: use feedback=gap_reward"):
        RewardModel(str(trained[1]))


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        ({"name": "bradley_terry"}, "loss.name=bradley_terry: a gap model is trained with loss=gap"),
        ({"name": "gap", "margin_weight": 1}, "loss.margin_weight: the loss 'gap' takes no such setting"),
    ],
)
def test_other_losses_are_refused(loss: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_gap_loss(loss)


def test_objectives_are_refused() -> None:
    settings = config()
    settings.model.objectives = ["a"]
    with pytest.raises(UserError, match="model.objectives are for recipe=reward"):
        GapTrainer(config=settings, train=some_pairs())


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    def trainer() -> GapTrainer:
        return GapTrainer(config=config(steps=4, batch_size=4, save_steps=2), train=some_pairs(), folder=tmp_path)

    def rows() -> list[tuple]:
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return [(row["step"], row["loss"], row["ordered"]) for row in lines if "loss" in row]

    trainer().train()
    kept = rows()
    trainer().resume(tmp_path / "checkpoints" / "checkpoint-2")
    assert rows() == kept and len(kept) == 4
