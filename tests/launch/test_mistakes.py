"""Every mistake on a command line names itself and its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.launch.compose import Composer
from alignment.launch.mistakes import nearest_keys

MISTAKES = [
    (["recipe=dpoo"], ["unknown recipe 'dpoo'", "did you mean dpo", "recipes: "]),
    ([], ["no recipe", "recipes: "]),
    (["recipe=null"], ["no recipe"]),
    (["recipe=nowhere/x.yaml"], ["recipe=nowhere/x.yaml: no such file"]),
    (["recipe=dpo", "model=tyni"], ["unknown model 'tyni'", "did you mean tiny?", "model.path="]),
    (["recipe=dpo", "data=mine.jsonl"], ["unknown data 'mine.jsonl'", "data.path="]),
    (["recipe=dpo", "+model=tiny"], ["write model=tiny, without the +"]),
    (["recipe=dpo", "loss.betta=0.2"], ["unknown key 'loss.betta'", "did you mean loss.beta?"]),
    (["recipe=dpo", "learning_rate=1e-5"], ["unknown key 'learning_rate'", "did you mean training.learning_rate?"]),
    (["recipe=dpo", "training.lerning_rate=1"], ["did you mean training.learning_rate?"]),
    (["recipe=dpo", "trainning.learning_rate=1"], ["did you mean training.learning_rate?"]),
    (["recipe=dpo", "training.zzz=1"], ["unknown key 'training.zzz'", "training.batch_size"]),
    (["recipe=dpo", "+training.zzz=1"], ["unknown key 'training.zzz'"]),
    (["recipe=dpo", "+zzz=1"], ["unknown key 'zzz'", "training"]),
    (["recipe=dpo", "training.learning_rate=abc"], ["training.learning_rate=abc: a number is needed"]),
    (["recipe=dpo", "seed=1.5"], ["seed=1.5: a whole number is needed"]),
    (["recipe=dpo", "seed=null"], ["seed=null: a whole number is needed"]),
    (["recipe=dpo", "training.max_steps=x"], ["a whole number or null is needed"]),
    (["recipe=dpo", "training.bf16=maybe"], ["training.bf16=maybe", "known: auto, true, false"]),
    (["recipe=dpo", "training.report_to=wandb"], ["training.report_to=[a]"]),
    (["recipe=dpo", "training=3"], ["this is a section", "training.learning_rate"]),
    (["recipe=dpo", "loss=ipoo"], ["unknown loss 'ipoo'", "did you mean ipo", "--config-dir"]),
    (["recipe=dpo", "feedback=lenght"], ["unknown feedback 'lenght'", "did you mean length", "FILE.py:THING"]),
    (["recipe=dpo", "feedback=nowhere.yaml"], ["feedback=nowhere.yaml: no such file"]),
    (["recipe=dpo", "feedback=length", "feedback.targt=3"], ["feedback.targt: length has no such", "target"]),
    (["recipe=dpo", "feedback.target=3"], ["feedback needs a name"]),
    (["recipe=dpo", "feedback=regex"], ["feedback.pattern is needed by regex"]),
    (["recipe=dpo", "+feedback=length"], ["write feedback=length, without the +"]),
    (["recipe=dpo", "evaluation.score=plain_word"], ["unknown evaluation.score 'plain_word'", "plain_words"]),
    (["recipe=dpo", "evaluation.score={name: length, x: 1}"], ["evaluation.score.x: length has no such setting"]),
    (["recipe=dpo", "seed=1,2"], ["add -m"]),
    (["recipe=dpo", "seed"], ["'seed' is not an override: write key=value"]),
    (["recipe=dpo", "seed=[1"], ["cannot read the override 'seed=[1'"]),
    (["recipe=dpo", "hydra.run.dir=x"], ["output_dir=FOLDER"]),
    (["recipe=dpo", "data.limit=${nope}"], ["data.limit", "nope"]),
    (["recipe=dpo", "~zzz"], ["zzz"]),
    (["recipe=dpo", "training.layout=shard"], ["training.layout=shard: did you mean shared?"]),
    (["recipe=dpo", "training.report_to=[wandbb]"], ["training.report_to=wandbb: did you mean wandb?"]),
    (["recipe=dpo", "training.batch_size=0"], ["training.batch_size=0: must be at least 1"]),
    (["recipe=dpo", "data.eval_fraction=1"], ["data.eval_fraction=1.0: must be at least 0 and less than 1"]),
    (["recipe=dpo", "training.learning_rate=nan"], ["training.learning_rate=nan: must be between 1e-12 and 1"]),
    (["recipe=p3o", "rollout.epochs=0"], ["rollout.epochs=0: must be at least 1"]),
    (["recipe=p3o", "rollout.kl_limit=0"], ["rollout.kl_limit=0.0: must be greater than 0"]),
    (["recipe=p3o", "rollout.on_kl_limit=rise"], ["rollout.on_kl_limit=rise: did you mean raise?"]),
    (["recipe=p3o", "rollout.top_p=0"], ["rollout.top_p=0.0: must be in (0, 1]"]),
    (["recipe=nash_md", "rollout.mixture=1.5"], ["rollout.mixture=1.5: must be between 0 and 1"]),
    (
        ["recipe=nash_md", "rollout.opponent_decay=1"],
        ["rollout.opponent_decay=1.0: must be greater than 0 and less than 1"],
    ),
    (["recipe=cut_online", "rollout.iterations=0"], ["rollout.iterations=0: must be at least 1"]),
    (
        ["recipe=cut_online", "feedback.abuot=[x]"],
        ["feedback.abuot: plain_critic has no such setting; did you mean about or fault?"],
    ),
    (["recipe=ilf", "ilf.refinr=tiny"], ["unknown key 'ilf.refinr'", "did you mean ilf.refiner?"]),
    (["recipe=dpo", "data.path=null"], ["no data"]),
    (["recipe=dpo", "model.path=null"], ["no model"]),
]


@pytest.mark.parametrize(("overrides", "fragments"), MISTAKES, ids=lambda value: " ".join(value))
def test_mistake(composer: Composer, overrides: list[str], fragments: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        composer.config(overrides)
    message = str(caught.value)
    assert message.count("\n") <= 1
    assert "hydra.cc" not in message
    for fragment in fragments:
        assert fragment in message


RECIPES = [
    ("loss: {name: sigmoid\nseed: 1\n", [":2", "not valid YAML"]),
    ("seed: 1\nseed: 2\n", ["not valid YAML", "duplicate key"]),
    ("- seed\n", ["a mapping of keys"]),
    ("", ["a mapping of keys"]),
    ("trainning: {learning_rate: 1}\n", ["unknown key 'trainning'", "did you mean training?"]),
    ("training: {lerning_rate: 1}\n", ["unknown key 'training.lerning_rate'", "training.learning_rate"]),
    ("training: {learning_rate: fast}\n", ["training.learning_rate", "a number is needed", "'fast'"]),
    ("defaults: [{override /model: tyni}]\n", ["unknown model 'tyni'", "did you mean tiny?"]),
    ("defaults: [{override /modle: tiny}]\n", ["modle"]),
]


@pytest.mark.parametrize(("text", "fragments"), RECIPES, ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_mistake_in_a_recipe_names_the_file(
    composer: Composer, tmp_path: Path, text: str, fragments: list[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        composer.config([f"recipe={file}"])
    message = str(caught.value)
    assert message.count("\n") <= 1
    for fragment in [*fragments, "mine.yaml"]:
        assert fragment in message


def test_recipe_that_is_not_text(composer: Composer, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"seed: \xff\xfe\n")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        composer.config([f"recipe={file}"])


def test_nearest_keys_prefers_the_same_name_elsewhere() -> None:
    known = ["training", "training.beta1", "loss", "loss.beta", "loss.name", "model.name"]
    assert nearest_keys("beta", known)[0] == "loss.beta"
    assert nearest_keys("training.beta", known)[:2] == ["loss.beta", "training.beta1"]
    assert set(nearest_keys("name", known)) == {"loss.name", "model.name"}
    assert nearest_keys("zzz", known) == []
