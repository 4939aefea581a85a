"""Composition: what a command line becomes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.launch.assets import catalogue
from alignment.launch.compose import Composer


def test_recipe_over_groups_over_schema(composer: Composer) -> None:
    config = composer.config(["recipe=dpo"])
    assert type(config) is RunConfig
    assert (config.recipe, config.method) == ("dpo", "dpo")
    assert (config.model.name, config.model.path) == ("smollm2-135m", "smollm2-135m")
    assert config.loss == {"name": "sigmoid", "beta": 0.1, "label_smoothing": 0.0}  # the recipe's
    assert config.training.learning_rate == pytest.approx(4e-5)  # the recipe's, over the schema's 5e-6
    assert config.training.max_grad_norm == RunConfig().training.max_grad_norm  # the schema's
    assert config.peft.method == "lora"


def test_command_line_over_recipe(composer: Composer) -> None:
    config = composer.config(["recipe=dpo", "model=tiny", "training.learning_rate=1e-5", "loss.beta=0.2", "peft=none"])
    assert config.model.path == "tiny"
    assert config.training.learning_rate == pytest.approx(1e-5)
    assert config.loss["beta"] == 0.2
    assert config.peft.method == "none"


def test_every_shipped_recipe_and_option_composes(composer: Composer) -> None:
    files = catalogue()
    assert files.recipes
    for recipe, path in files.recipes.items():
        assert composer.config([f"recipe={recipe}"]).recipe == recipe
        assert composer.config([f"recipe={recipe}"]).description
        assert f"recipe={recipe}" in path.read_text().splitlines()[0]  # its first comment is the command
    for group, options in files.groups.items():
        for option in options:
            if option == "qlora" and find_spec("bitsandbytes") is None:
                continue
            composer.config(["recipe=dpo", "data.path=x.jsonl", f"{group}={option}"])


def test_own_data_replaces_the_whole_data_group(composer: Composer) -> None:
    assert composer.config(["recipe=dpo"]).data.eval_path == "everyday"
    assert composer.config(["recipe=dpo"]).evaluation.score == "plain_words"
    own = composer.config(["recipe=dpo", "data.path=mine.jsonl"])
    assert own.data.path == "mine.jsonl"
    assert own.data.eval_path is None  # not the built-in test set
    assert own.evaluation.score is None  # its ground truth is not known for other data
    assert own.data.max_prompt_length == 256  # the recipe's own settings stay


def test_built_in_data_by_path_is_the_group(composer: Composer) -> None:
    assert composer.config(["recipe=dpo", "data.path=everyday"]).evaluation.score == "plain_words"


def test_mixture_as_path(composer: Composer) -> None:
    assert composer.config(["recipe=dpo", "data.path={a.jsonl: 2, b.jsonl: 1}"]).data.path == {
        "a.jsonl": 2,
        "b.jsonl": 1,
    }


def test_model_is_named_by_its_path(composer: Composer, tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    assert composer.config(["recipe=dpo", f"model.path={tmp_path}/my-model"]).model.name == "my-model"
    assert composer.config(["recipe=dpo", "model.path=org/some-model"]).model.name == "org/some-model"
    assert composer.config(["recipe=dpo", "model.path=org/some-model", "model.name=m"]).model.name == "m"


def test_recipe_by_path(composer: Composer, tmp_path: Path) -> None:
    file = tmp_path / "careful.yaml"
    file.write_text("method: dpo\nloss: {name: sigmoid, beta: 0.5}\ntraining: {learning_rate: 2e-6}\n")
    config = composer.config([f"recipe={file}", "seed=3"])
    assert config.recipe == "careful"
    assert config.loss["beta"] == 0.5
    assert config.training.learning_rate == pytest.approx(2e-6)  # a number, though plain YAML reads a text
    assert config.seed == 3


def test_the_loss_is_a_group(composer: Composer, tmp_path: Path) -> None:
    assert composer.config(["recipe=dpo", "loss=ipo", "loss.beta=0.2"]).loss == {
        "name": "ipo",
        "beta": 0.2,
        "length": "mean",
    }
    # A modifier stands beside any loss, without a +.
    assert composer.config(["recipe=dpo", "loss=hinge", "loss.divergence=js"]).loss["divergence"] == "js"
    # A recipe with a loss of its own keeps nothing of the default one.
    file = tmp_path / "sum.yaml"
    for header in ("", "defaults: [dpo]\n"):
        file.write_text(header + "loss: {terms: [{name: hinge}, {name: sft, weight: 0.5}]}\n")
        assert set(composer.config([f"recipe={file}"]).loss) == {"terms"}
    own = tmp_path / "configs" / "loss"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("name: mine.py:my_loss\nscale: 3\n")
    config = Composer.create(tmp_path / "configs").config(["recipe=dpo", "loss=mine"])
    assert config.loss == {"name": "mine.py:my_loss", "scale": 3}


def test_feedback_is_a_group(composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def composed(*words: str) -> dict:
        return composer.config(["recipe=dpo", *words]).feedback

    assert composed() == {}
    assert composed("feedback=repetition") == {"name": "repetition", "n": 4}
    # A kind without a file, a setting that the file leaves out, a file, and one's own function.
    assert composed("feedback=regex", "feedback.pattern=ab+") == {"name": "regex", "pattern": "ab+"}
    assert composed("feedback=plain_words", "feedback.fewest=3")["fewest"] == 3
    (tmp_path / "mine.yaml").write_text("name: noise\nof: {name: length}\n")
    assert composed("feedback=mine.yaml", "feedback.rate=0.1", "feedback.of.target=5") == {
        "name": "noise",
        "rate": 0.1,
        "of": {"name": "length", "target": 5},
    }
    (tmp_path / "own.py").write_text("def shout(prompt, completion, context):\n    return completion.count('!')\n")
    assert composed("feedback=own.py:shout") == {"name": "own.py:shout"}


def test_null_is_none_of_a_group(composer: Composer) -> None:
    assert composer.config(["recipe=p3o", "feedback=null"]).feedback == {}
    assert composer.config(["recipe=cut_online", "feedback=null"]).feedback == {}  # nor the recipe's own
    assert composer.config(["recipe=dpo", "loss=null", "feedback=null"]).loss == {}


def test_a_recipes_own_feedback_gives_way_to_the_command_lines(composer: Composer, tmp_path: Path) -> None:
    file = tmp_path / "judged.yaml"
    for header in ("", "defaults: [dpo]\n"):
        file.write_text(header + "feedback: {name: noise, rate: 0.1, of: {name: length}}\n")
        config = [f"recipe={file}", "data.path=x.jsonl"]
        assert composer.config(config).feedback == {"name": "noise", "rate": 0.1, "of": {"name": "length"}}
        assert composer.config([*config, "feedback.rate=0.2"]).feedback["rate"] == 0.2
        assert composer.config([*config, "feedback=repetition"]).feedback == {"name": "repetition", "n": 4}
    file.write_text("defaults: [{override /feedback: length}]\nfeedback: {target: 9}\ndata: {path: x.jsonl}\n")
    assert composer.config([f"recipe={file}"]).feedback == {"name": "length", "unit": "words", "target": 9}


def test_the_score_of_the_evaluation_is_any_feedback(composer: Composer) -> None:
    def score(*words: str) -> object:
        return composer.config(["recipe=dpo", *words]).evaluation.score

    assert score("evaluation.score=length") == "length"
    assert score("evaluation.score={name: length, target: 20}") == {"name": "length", "target": 20}
    assert score("evaluation.score=null") is None


def test_recipe_extends_another(composer: Composer, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [dpo, {override /model: tiny}]\nloss: {beta: 0.3}\n")
    config = composer.config([f"recipe={file}"])
    assert config.recipe == "mine"
    assert config.loss == {"name": "sigmoid", "beta": 0.3, "label_smoothing": 0.0}
    assert config.training.max_steps == composer.config(["recipe=dpo"]).training.max_steps
    assert config.model.path == "tiny"
    assert composer.config([f"recipe={file}", "model=smollm2-135m"]).model.path == "smollm2-135m"


def test_recipe_with_data_of_its_own_keeps_no_built_in_test_set(composer: Composer, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [dpo]\ndata: {path: mine.jsonl}\n")
    config = composer.config([f"recipe={file}"])
    assert (config.data.path, config.data.eval_path, config.evaluation.score) == ("mine.jsonl", None, None)


def test_two_recipe_files_of_one_name(composer: Composer, tmp_path: Path) -> None:
    for folder, beta in (("a", 0.3), ("b", 0.7)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dpo.yaml").write_text(f"loss: {{name: sigmoid, beta: {beta}}}\n")
    assert composer.config([f"recipe={tmp_path}/a/dpo.yaml"]).loss["beta"] == 0.3
    assert composer.config([f"recipe={tmp_path}/b/dpo.yaml"]).loss["beta"] == 0.7
    assert composer.config(["recipe=dpo"]).loss["beta"] == 0.1


def test_config_dir(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("defaults: [{override /model: ours}]\n")
    (tmp_path / "model" / "ours.yaml").write_text("path: org/ours\n")
    config = Composer.create(tmp_path).config(["recipe=mine"])
    assert (config.recipe, config.model.path) == ("mine", "org/ours")
    with pytest.raises(UserError, match="no such folder"):
        Composer.create(tmp_path / "nowhere")


def test_equals_sign_in_a_path_needs_no_quotes(composer: Composer) -> None:
    config = composer.config(["recipe=dpo", "data.path=split=train/part.parquet", "resume=runs/0_loss.beta=0.1"])
    assert config.data.path == "split=train/part.parquet"
    assert config.resume == "runs/0_loss.beta=0.1"


def test_interpolation(composer: Composer) -> None:
    assert composer.config(["recipe=dpo", "seed=7", "data.limit=${seed}"]).data.limit == 7


def test_sweep_is_the_product_of_the_choices(composer: Composer) -> None:
    jobs = composer.jobs(["recipe=dpo", "loss.beta=0.1,0.5", "seed=range(0,2)", "training.report_to=[wandb,trackio]"])
    assert jobs == [
        ["recipe=dpo", f"loss.beta={beta}", f"seed={seed}", "training.report_to=[wandb,trackio]"]
        for beta in ("0.1", "0.5")
        for seed in (0, 1)
    ]
    assert composer.jobs(["recipe=dpo"]) == [["recipe=dpo"]]


def test_sweep_over_recipes(composer: Composer, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [dpo]\n")
    jobs = composer.jobs([f"recipe=dpo,{file}"])
    assert [composer.config(job).recipe for job in jobs] == ["dpo", "mine"]
    assert composer.jobs(["recipe=dpo", "peft=glob(*)"]) == [
        ["recipe=dpo", f"peft={name}"] for name in ("lora", "none", "qlora")
    ]


def test_hydra_is_left_as_it_was(composer: Composer) -> None:
    composer.config(["recipe=dpo"])
    assert not GlobalHydra.instance().is_initialized()
