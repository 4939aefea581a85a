"""A resumed run takes the same steps; one that would take others is refused, with every difference shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.batching.groups import Group, Unit
from alignment.batching.stored import digests
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.launch.entry import main
from alignment.models.dropout import draws_masks
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.same_run import FILE, check_run, check_settings, write_stamp
from tests.end_to_end.data import write_pairs
from tests.trainers.pairs import some_pairs
from tests.trainers.test_dpo import rows, settings


def units(count: int = 10) -> list[Unit]:
    return [Unit(f"pair-{n}", (Group((1, 2), ((3, n), (4,))),), {"p_chosen": 1.0}) for n in range(count)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_stamp(tmp_path, RunConfig(loss={"name": "sigmoid", "beta": 0.1}), digests(units()), 1)
    return tmp_path


def config(**loss) -> RunConfig:
    return RunConfig(loss={"name": "sigmoid", "beta": 0.1, **loss})


def test_the_same_run_passes(checkpoint: Path) -> None:
    assert check_run(checkpoint, config(), units(), 1) == []
    renamed = [replace(unit, id=f"other-{unit.id}") for unit in units()]
    assert check_run(checkpoint, config(), renamed, 1) == []  # the same content, out of another file


def test_what_cannot_change_an_update_passes_and_what_rounds_is_named(checkpoint: Path) -> None:
    other = config()
    other.output_dir, other.recipe, other.data.path = "elsewhere", "mine", "moved.jsonl"
    other.training.save_steps, other.training.logging_steps, other.training.report_to = 7, 5, ["wandb"]
    other.evaluation.prompts, other.reference.cache = 0, False
    assert check_run(checkpoint, other, units(), 1) == []
    other.training.token_budget, other.reference.when, other.rollout.batch_size = 512, "precompute", 8
    assert check_run(checkpoint, other, units(), 1) == [
        "reference.when: step -> precompute",
        "rollout.batch_size: 32 -> 8",
        "training.token_budget: 4096 -> 512",
    ]


def test_every_other_setting_refuses_and_is_shown(checkpoint: Path) -> None:
    other = config(beta=0.5, ld_alpha=0.3)
    other.seed, other.peft.dropout, other.data.limit, other.training.max_steps = 1, 0.1, 5, 100
    with pytest.raises(UserError) as refused:
        check_settings(checkpoint, other, 2)
    differences = refused.value.args[0].splitlines()[0].partition("not the same run any more: ")[2].split("; ")
    assert differences == [
        "processes: 1 -> 2 (dropout would be drawn anew)",
        "seed: 0 -> 1",
        "data.limit: null -> 5",
        "peft.dropout: 0.0 -> 0.1",
        "loss.beta: 0.1 -> 0.5",
        "loss.ld_alpha: not set -> 0.3",
        "training.max_steps: null -> 100",
    ]
    other.model.dtype, other.peft.r = "bfloat16", 8
    other.training.optimizer = "sgd"
    with pytest.raises(UserError, match="and 2 more\nMend: "):  # eight are named
        check_settings(checkpoint, other, 2)


@pytest.mark.parametrize(
    ("noted", "now", "says"),
    [
        ({"dropout": False}, {}, None),
        ({"dropout": True}, {}, "processes: 1 -> 2 (dropout would be drawn anew)"),
        ({}, {}, "processes: 1 -> 2 (dropout"),  # a checkpoint that does not know
        ({"dropout": False, "sharding": "fsdp"}, {"sharding": "fsdp"}, None),
        ({"dropout": False, "sharding": "fsdp"}, {}, "sharding: fsdp -> none"),
        ({"dropout": False}, {"sharding": "fsdp"}, "sharding: none -> fsdp"),
        ({"dropout": False, "sharding": "deepspeed"}, {"sharding": "deepspeed"}, "processes: 1 -> 2 (DeepSpeed"),
    ],
)
def test_another_number_of_processes_rounds_unless_it_draws_or_reads_otherwise(
    noted: dict, now: dict, says: str | None, tmp_path: Path
) -> None:
    write_stamp(tmp_path, config(), digests(units()), 1, **noted)
    if says is None:
        assert check_run(tmp_path, config(), units(), 2, **now) == check_settings(tmp_path, config(), 2)
        assert check_settings(tmp_path, config(), 2) == ["processes: 1 -> 2"]
    else:
        with pytest.raises(UserError) as refused:
            check_run(tmp_path, config(), units(), 2, **now)
        assert says in str(refused.value)


@pytest.mark.parametrize(("rate", "where"), [(0.0, None), (0.1, "lora"), (0.1, "attention")])
def test_dropout_is_seen_wherever_it_is(rate: float, where: str | None) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    plain = LlamaForCausalLM(
        LlamaConfig(vocab_size=9, attention_dropout=rate if where == "attention" else 0.0, **sizes)
    )
    lora = LoraConfig(r=1, lora_dropout=rate if where == "lora" else 0.0, target_modules="all-linear")
    assert draws_masks(get_peft_model(plain, lora)) is (where is not None)


def test_a_setting_that_the_checkpoint_does_not_know_stood_at_its_default(checkpoint: Path) -> None:
    stamp = json.loads((checkpoint / FILE).read_text())
    del stamp["config"]["training"]["warmup_ratio"]
    (checkpoint / FILE).write_text(json.dumps(stamp))
    assert check_settings(checkpoint, config(), 1) == []
    other = config()
    other.training.warmup_ratio = 0.5
    with pytest.raises(UserError, match=r"training.warmup_ratio: 0.1 -> 0.5"):
        check_settings(checkpoint, other, 1)
    (checkpoint / FILE).write_text('{"processes": 1, "conf')
    with pytest.raises(UserError, match="no readable run.json"):
        check_settings(checkpoint, config(), 1)


def edited(found: list[Unit]) -> list[Unit]:
    found[3] = replace(found[3], groups=(Group((1, 2), ((3, 3), (5,))),))
    found[7] = replace(found[7], values={"p_chosen": 0.9})
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited, "2 of 10 training examples changed, e.g. pair-3, pair-7"),
        (lambda found: found[1:], "training examples: 10 -> 9, 1 gone and 0 new"),
        (lambda found: units(11), "training examples: 10 -> 11, 0 gone and 1 new, e.g. pair-10"),
        (lambda found: found[::-1], "the 10 training examples stand in another order"),
        (lambda found: [replace(u, aside=u.groups) for u in found], "10 of 10 training examples changed, e.g. pair-0,"),
        (lambda found: [*found[:-1], found[0]], "1 of 10 training examples changed, e.g. pair-0\n"),  # twice
    ],
)
def test_other_data_is_refused(change, message: str, checkpoint: Path) -> None:
    with pytest.raises(UserError) as refused:
        check_run(checkpoint, config(), change(units()), 1)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("peft", "loss", "when"),
    [
        ("none", {"name": "sigmoid", "beta": 0.1}, "step"),
        ("lora", {"name": "sigmoid", "beta": 0.1}, "precompute"),
        ("lora", {"name": "ipo", "beta": 0.1, "length": "mean", "weighting": "wpo"}, "step"),
    ],
)
def test_resumed_is_uninterrupted(peft: str, loss: dict, when: str, tmp_path: Path) -> None:
    """Six steps of four of six pairs: the checkpoint of step 2 lies inside the second epoch."""

    def trainer() -> DPOTrainer:
        config = settings(max_steps=6, save_steps=2, save_total_limit=9, token_budget=90, learning_rate=1e-3)
        config.loss, config.peft.method, config.peft.dropout = loss, peft, 0.1
        config.reference.when, config.reference.cache = when, False
        return DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(1), folder=tmp_path)

    whole = trainer()
    whole.train()
    expected = {name: value.clone() for name, value in whole.model.state_dict().items()}
    curve = rows(tmp_path, "loss")
    again = trainer()
    with torch.no_grad():  # whatever it starts from is not what it goes on with
        for parameter in again.model.parameters():
            if parameter.requires_grad and peft == "lora":
                parameter.add_(1.0)
    again.resume(tmp_path / "checkpoints" / "checkpoint-2")
    found = again.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert rows(tmp_path, "loss") == curve and len(curve) == 6


def test_the_command_line_refuses_before_a_model_is_loaded(tmp_path: Path, capsys, monkeypatch) -> None:
    data, run = write_pairs(tmp_path / "train.jsonl"), tmp_path / "run"
    launched = ["recipe=dpo", "model=tiny", f"data.path={data}", f"output_dir={run}", "evaluation.prompts=0"]
    launched += ["training.max_steps=2", "training.save_steps=2", "training.bf16=false"]
    assert main(launched) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("alignment.launch.training_run.METHODS", {"dpo": None})
        assert main([f"resume={run}", "loss.beta=0.5", "training.learning_rate=1e-4"]) == 2
    said = capsys.readouterr().err
    assert "loss.beta: 0.1 -> 0.5; training.learning_rate: 4e-05 -> 0.0001" in said and "Traceback" not in said
    lines = data.read_text().splitlines(keepends=True)
    changed = json.loads(lines[-1]) | {"chosen": "It is not."}
    data.write_text("".join([*lines[:-1], json.dumps(changed)]))
    assert main([f"resume={run}"]) == 2
    assert "1 of 21 training examples changed, e.g. " in capsys.readouterr().err
