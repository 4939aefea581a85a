"""Reward and preference models: what is saved loads anywhere with its head, and what each kind can express."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignment.batching.groups import Group
from alignment.batching.packing import pack
from alignment.config import DataConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data.views import Pair
from alignment.errors import UserError
from alignment.evaluation.export import export
from alignment.feedback.build import build_feedback
from alignment.feedback.trained import PreferenceModel, RewardModel
from alignment.models.scores import completion_scores
from alignment.trainers.preference_model import PreferenceModelTrainer
from alignment.trainers.reward import RewardTrainer
from alignment.trainers.sft import SFTTrainer
from tests.trainers.pairs import some_pairs

PROMPTS = [pair.prompt for pair in some_pairs()]
ANSWERS = [pair.chosen[0]["content"] for pair in some_pairs()]
OTHERS = [pair.rejected[0]["content"] for pair in some_pairs()]


def config(method: str = "reward", peft: str = "lora", steps: int = 3, **training) -> RunConfig:
    losses = {"sft": "nll"}
    return RunConfig(
        method=method,
        model=ModelConfig(path="tiny"),
        data=DataConfig(eval_fraction=0.0),
        peft=PeftConfig(method=peft, r=4),
        loss={"name": losses.get(method, "bradley_terry")},
        training=TrainingConfig(learning_rate=1e-3, batch_size=6, max_steps=steps, bf16=False, **training),
    )


def trained(folder: Path, peft: str = "lora", trainer=RewardTrainer, model: str | None = None) -> Path:
    method = {"reward": "reward", "preference": "preference_model"}[trainer.kind]
    run = trainer(model, config(method, peft), train=some_pairs(), folder=folder)
    run.train()
    run.save_policy(folder / "model")
    return folder / "model"


IN_A_FRESH_PROCESS = """
import json, sys
from alignment.feedback.trained import RewardModel
prompts, answers = json.loads(sys.stdin.read())
print("SCORES", json.dumps([RewardModel(path).score(prompts, answers) for path in sys.argv[1:]]))
"""


def test_a_fresh_process_scores_the_same_full_lora_and_merged(tmp_path: Path) -> None:
    """The head is saved with the adapter, with the whole model, and by the export; each has really been trained."""
    expected, folders = [], []
    for peft in ("none", "lora"):
        run = RewardTrainer(config=config(peft=peft), train=some_pairs(), folder=tmp_path / peft)
        run.train()
        run.save_policy(tmp_path / peft / "model")
        run.model.eval()
        groups = [unit.groups[0] for unit in run.train_units]
        with torch.no_grad():
            scores = completion_scores(run.model, pack(groups))[0::2, 0].tolist()
        expected += [scores] * (2 if peft == "lora" else 1)
        folders += [str(tmp_path / peft / "model")]
    folders.append(str(export(tmp_path / "lora", tmp_path / "merged")))
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *folders],
        input=json.dumps([PROMPTS, ANSWERS]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("SCORES"))
    found = json.loads(line.removeprefix("SCORES"))
    for name, scores, known in zip(folders, found, expected, strict=True):
        assert scores == pytest.approx(known, abs=1e-5), name
    assert max(map(abs, expected[0])) > 1e-3


def test_plain_transformers_scores_the_same(tmp_path: Path) -> None:
    """AutoModelForSequenceClassification on padded rows: its padding token must not be the one that ends a turn."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    trained(tmp_path / "run")
    plain = export(tmp_path / "run", tmp_path / "plain")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(plain), AutoTokenizer.from_pretrained(plain)
    assert model.config.num_labels == 1 and tokenizer.pad_token_id != tokenizer.eos_token_id
    chats = [
        [*prompt, {"role": "assistant", "content": answer}] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False).rstrip("\n") for chat in chats]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        found = model(**batch).logits.squeeze(-1).tolist()
    assert found == pytest.approx(RewardModel(str(plain)).score(PROMPTS, ANSWERS), abs=1e-5)


def test_warm_start_from_an_sft_adapter_is_kept_through_saving(tmp_path: Path) -> None:
    """A LoRA reward model on a LoRA policy: its base is the policy, not what the policy started from."""
    policy = SFTTrainer(config=config("sft"), train=str_data(tmp_path), folder=tmp_path / "sft")
    policy.train()
    policy.save_policy(tmp_path / "sft" / "model")
    run = RewardTrainer(str(tmp_path / "sft"), config(), train=some_pairs(), folder=tmp_path / "reward")
    run.train()
    run.save_policy(tmp_path / "reward" / "model")
    run.model.eval()
    with torch.no_grad():
        scores = completion_scores(run.model, pack([unit.groups[0] for unit in run.train_units]))[0::2, 0].tolist()
        with run.model.disable_adapter():  # how much of it is the policy's
            base = completion_scores(run.model, pack([unit.groups[0] for unit in run.train_units]))
    assert RewardModel(str(tmp_path / "reward")).score(PROMPTS, ANSWERS) == pytest.approx(scores, abs=1e-5)
    merged = export(tmp_path / "reward", tmp_path / "merged")
    assert RewardModel(str(merged)).score(PROMPTS, ANSWERS) == pytest.approx(scores, abs=1e-5)
    cold = RewardTrainer(config=config(), train=some_pairs(), folder=tmp_path / "cold")
    cold.model.eval()
    with torch.no_grad(), cold.model.disable_adapter():
        assert not torch.allclose(base, completion_scores(cold.model, pack([u.groups[0] for u in run.train_units])))


def str_data(folder: Path) -> str:
    from tests.end_to_end.data import write_pairs

    return str(write_pairs(folder / "pairs.jsonl"))


def test_two_objectives_are_two_scores_and_their_mean(tmp_path: Path) -> None:
    pairs = [
        Pair(**{**vars(pair), "objective": "helpful.jsonl" if number % 2 else "brief"})
        for number, pair in enumerate(some_pairs())
    ]
    settings = config()
    settings.model.objectives = ["brief", "helpful"]
    run = RewardTrainer(config=settings, train=pairs, folder=tmp_path)
    run.train()
    run.save_policy(tmp_path / "model")
    model = RewardModel(str(tmp_path))
    parts = model.parts(PROMPTS, ANSWERS)
    assert list(parts) == ["brief", "helpful"]
    sums = [sum(row) for row in zip(*parts.values(), strict=True)]
    assert model.score(PROMPTS, ANSWERS) == pytest.approx(sums, abs=1e-6)
    other = RewardModel(str(tmp_path), weights=[1.0, 0.0]).score(PROMPTS, ANSWERS)
    assert other == pytest.approx([2 * value for value in parts["brief"]], abs=1e-6)
    with pytest.raises(UserError, match="1 given, .* has 2 scores"):
        RewardModel(str(tmp_path), weights=[1.0])
    stranger = [Pair(**{**vars(pairs[0]), "objective": "kind.jsonl"})]
    with pytest.raises(UserError, match=r"objective 'kind.jsonl', and model.objectives are brief, helpful"):
        RewardTrainer(config=settings, train=stranger, folder=tmp_path / "other")


def test_a_preference_model_is_antisymmetric_to_the_bit(tmp_path: Path) -> None:
    model = PreferenceModel(str(trained(tmp_path, trainer=PreferenceModelTrainer)))
    there = model.prefer(PROMPTS, ANSWERS, OTHERS)
    back = model.prefer(PROMPTS, OTHERS, ANSWERS)
    assert [a + b for a, b in zip(there, back, strict=True)] == [1.0] * len(there)
    assert model.prefer(PROMPTS, ANSWERS, ANSWERS) == [0.5] * len(there)
    assert len(set(there)) == len(there)


STYLES = {"rock": "a grey rock", "scissors": "sharp scissors", "paper": "white paper"}
BEATS = [("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")]


def cycle(count: int, seed: int) -> list[Pair]:
    """Rock beats scissors beats paper beats rock, in sentences that say more or less the same."""
    draw, found = random.Random(seed), []
    for number, (winner, loser) in zip(range(count), itertools.cycle(BEATS), strict=False):
        sides = []
        for style in (winner, loser):
            start = draw.choice(["I take", "Mine is", "Here is", "My choice:", "I show", "Now"])
            end = draw.choice([".", "!", ", of course.", ", again.", ", and you?", " this time."])
            sides.append([{"role": "assistant", "content": f"{start} {STYLES[style]}{end}"}])
        prompt = [
            {"role": "user", "content": draw.choice(["Your turn.", "Play.", "Show your hand.", "What do you have?"])}
        ]
        found.append(Pair(f"{seed}-{number}", prompt, *sides))
    return found


def test_an_intransitive_preference_is_learned_by_the_preference_model_and_by_no_reward(tmp_path: Path) -> None:
    """No score can put three styles in a circle: of the three comparisons it gets at most two right."""
    accuracy = {}
    for trainer, method in ((RewardTrainer, "reward"), (PreferenceModelTrainer, "preference_model")):
        settings = config(method, peft="none", steps=16)
        settings.training.batch_size = 12
        run = trainer(config=settings, train=cycle(120, 1), eval=cycle(60, 2), folder=tmp_path / method)
        run.train()
        accuracy[method] = run.evaluate()["eval_accuracy"]
    assert accuracy["preference_model"] > 0.95
    assert accuracy["reward"] < 2 / 3 + 0.05


def test_what_is_no_reward_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tiny has no score head"):
        build_feedback({"name": "reward_model", "path": "tiny"})
    reward = trained(tmp_path / "reward")
    with pytest.raises(UserError, match="is a reward model: use feedback=reward_model"):
        PreferenceModel(str(reward))
    card = json.loads((reward / "scorer.json").read_text())
    (reward / "scorer.json").write_text(json.dumps({**card, "objectives": ["a", "b"]}))
    with pytest.raises(UserError, match="has a head of 1 scores, a reward model has 2"):
        RewardModel(str(reward))


def test_the_cache_asks_once_and_knows_one_model_from_another(tmp_path: Path) -> None:
    first, second = (trained(tmp_path / peft, peft) for peft in ("lora", "none"))
    settings = {"name": "cached", "folder": str(tmp_path / "cache")}
    found = []
    for path in (first, second, first):
        cached = build_feedback({**settings, "of": {"name": "reward_model", "path": str(path)}})
        found.append((cached.score(PROMPTS, ANSWERS), cached.counts["cached"]))
    assert found[0][0] == found[2][0] != found[1][0]
    assert [asked for _, asked in found] == [0, 0, len(ANSWERS)]


def test_a_prompt_that_is_too_long_has_no_verdict(tmp_path: Path) -> None:
    model = RewardModel(str(trained(tmp_path)), max_prompt_length=40)
    long = [{"role": "user", "content": "word " * 200}]
    found = model.score([PROMPTS[0], long], [ANSWERS[0], ANSWERS[0]])
    assert found[0] == found[0] and found[1] != found[1]
    assert model.counts == {"prompt too long": 1}


def test_bfloat16_weights_keep_a_float32_head(tmp_path: Path) -> None:
    settings = config()
    settings.model.dtype = "bfloat16"
    run = RewardTrainer(config=settings, train=some_pairs(), folder=tmp_path)
    run.train()
    run.save_policy(tmp_path / "model")
    assert run.layout == "shared"
    assert all(
        torch.isfinite(torch.tensor(RewardModel(str(tmp_path), dtype=dtype).score(PROMPTS, ANSWERS))).all()
        for dtype in ("bfloat16", "float32")
    )


def test_shared_and_padded_rows_score_the_same(tmp_path: Path) -> None:
    run = RewardTrainer(config=config(peft="none"), train=some_pairs(), folder=tmp_path)
    groups = [Group(unit.groups[0].prompt, (unit.groups[0].completions * 2)) for unit in run.train_units]
    run.model.eval()
    with torch.no_grad():
        shared, padded = (
            completion_scores(run.model, pack(groups, layout, run.pad_id)) for layout in ("shared", "padded")
        )
    assert run.layout == "shared"
    torch.testing.assert_close(shared, padded, atol=1e-5, rtol=0)
