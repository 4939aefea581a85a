"""Weights are safetensors; a pickle is refused unless allowed, and runs nothing even then."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import ModelConfig, PeftConfig
from alignment.errors import UserError
from alignment.models.adapters import add_adapter
from alignment.models.loading import BUILTIN_FOLDER, load_model
from alignment.models.scores import heads_of
from alignment.trainers import checkpoints
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.pairs import some_pairs
from tests.trainers.test_dpo import settings


class Bomb:
    """Pickled, it opens the file `ran` when it is read."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder / "ran")

    def __reduce__(self) -> Any:
        return open, (self.place, "w")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The tiny model with its weights as a sound pickle alone."""
    folder = tmp_path / "model"
    shutil.copytree(BUILTIN_FOLDER / "tiny", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_pickle_is_refused_unless_allowed(model: Path) -> None:
    with pytest.raises(UserError, match=r"pickle \(pytorch_model\.bin\).*model\.allow_pickle=true"):
        load_model(ModelConfig(path=str(model)))
    found = load_model(ModelConfig(path=str(model), allow_pickle=True)).state_dict()
    sound = load_model(ModelConfig(path="tiny")).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in sound.items())


def test_an_allowed_pickle_runs_nothing(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Bomb(model)}))
    with pytest.raises(UserError, match="cannot load the model"):
        load_model(ModelConfig(path=str(model), allow_pickle=True))
    torch.save({"lm_head.weight": Bomb(model)}, model / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load the model"):
        load_model(ModelConfig(path=str(model), allow_pickle=True))
    assert not (model / "ran").exists()


def test_an_adapter_that_is_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapted = add_adapter(load_model(ModelConfig(path="tiny")), PeftConfig(r=2))
    adapted.save_pretrained(folder, safe_serialization=True)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    note = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(note))
    config = ModelConfig(path=str(folder))
    for load in (
        lambda: load_model(config),
        lambda: heads_of(str(folder), config),
        lambda: add_adapter(load_model(ModelConfig(path="tiny")), PeftConfig(path=str(folder))),
    ):
        with pytest.raises(UserError, match=r"pickle \(adapter_model\.bin\)"):
            load()
    assert load_model(ModelConfig(path=str(folder), allow_pickle=True))


def test_weights_that_are_cut_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUILTIN_FOLDER / "tiny", folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").chmod(0o644)
    for size in (0, 7, 200, len(whole) // 2):
        (folder / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"cannot load the model of model.path={folder}"):
            load_model(ModelConfig(path=str(folder)))


def test_a_checkpoint_with_something_else_in_it_runs_nothing(tmp_path: Path) -> None:
    config = settings(max_steps=2, save_steps=1)
    DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path).train()
    first = checkpoints.checkpoint_folder(tmp_path, 1)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        planted = tmp_path / name / "checkpoints" / first.name
        shutil.copytree(first, planted)
        torch.save({"state": Bomb(tmp_path)}, planted / name)
        manifest = json.loads((planted / checkpoints.MANIFEST).read_text())
        manifest["files"][name] = (planted / name).stat().st_size
        (planted / checkpoints.MANIFEST).write_text(json.dumps(manifest))
        trainer = DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path / name)
        with pytest.raises(UserError, match="something else than a checkpoint does"):
            trainer.resume(planted)
        assert not (tmp_path / "ran").exists()
