"""recipe=cut_online and recipe=ilf, a few steps on `tiny`: their folders, what is counted, and going on when killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignment.launch.entry import main
from alignment.resumable import ResumableFile
from alignment.trainers import base
from tests.launching import launch

SMALL = ["model=tiny", "seed=3", "rollout.max_new_tokens=10", "training.max_steps=2", "training.batch_size=4"]
SMALL += ["evaluation.prompts=6", "evaluation.max_new_tokens=10", "data.eval_limit=6", "training.learning_rate=1e-3"]
ONLINE = ["recipe=cut_online", *SMALL, "rollout.iterations=2", "rollout.prompts=6", "rollout.batch_size=4"]
ILF = ["recipe=ilf", *SMALL, "data.limit=12", "rollout.max_new_tokens=48"]


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def said(file: Path) -> list[Any]:
    """What was asked, answered and judged; where the rows lay is not of it."""
    return [(row["prompt"], row["responses"]) for row in rows(file)]


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def same_weights(folder: Path, other: Path, name: str = "adapter_model.safetensors") -> bool:
    found, expected = load_file(folder / "model" / name), load_file(other / "model" / name)
    return found.keys() == expected.keys() and all(found[key].equal(expected[key]) for key in expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of cut_online."""
    folder = tmp_path_factory.mktemp("online") / "run"
    assert main([*ONLINE, f"output_dir={folder}"]) == 0
    return folder


def test_cut_online_is_a_finished_run_of_finished_runs(whole: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("config.yaml", "report.html", "curves.png", "samples.jsonl", "metrics.jsonl", "model/README.md"):
        assert (whole / name).stat().st_size > 0, name
    summary = summary_of(whole)
    runs = [summary_of(whole / f"iteration-{number}/train") for number in (1, 2)]
    assert (
        summary["method"] == "cut_online" and summary["steps"] == 4 and [run["method"] for run in runs] == ["cut"] * 2
    )
    assert [row["iteration"] for row in summary["iterations"]] == [1, 2]
    for row, run, number in zip(summary["iterations"], runs, (1, 2), strict=True):
        judged = rows(whole / f"iteration-{number}/judged.jsonl")
        verdicts = [note["satisfactory"] for line in judged for it in line["responses"] for note in it["judgments"]]
        assert row["prompts"] == row["answers"] == len(verdicts) == 6
        assert (row["satisfactory"], row["unsatisfactory"]) == (verdicts.count(True), verdicts.count(False))
        assert row["trained_on"] == verdicts.count(False) + min(verdicts.count(True), int(0.25 * verdicts.count(False)))
        assert row["satisfied"] == run["satisfied"] and run["satisfied"]["name"] == "plain_critic"
        assert run["satisfied"]["before"] == summary["satisfied"]["before"]  # all are compared with the first model
        assert run["fluency"]["before"] == summary["fluency"]["before"] and run["score"]["prompts"] == 6
    assert summary["satisfied"] == runs[1]["satisfied"] and summary["kl"] == runs[1]["kl"]
    assert runs[1]["kl"]["mean"] != runs[0]["kl"]["mean"]
    sources = {it["source"] for line in rows(whole / "iteration-2/answers.jsonl") for it in line["responses"]}
    assert sources == {"iteration-1"}
    page = (whole / "report.html").read_text()
    assert "satisfies plain_critic" in page and "after iteration 2" in page

    adapter = json.loads((whole / "model/adapter_config.json").read_text())  # one adapter, on the model itself
    assert adapter["base_model_name_or_path"].endswith("tiny")
    assert same_weights(whole, whole / "iteration-2/train") and not same_weights(whole, whole / "iteration-1/train")

    assert main([f"resume={whole}"]) == 0
    printed = capsys.readouterr().out
    assert "iteration-2/train: done before" in printed and "after iteration 1" in printed


class Killed(BaseException):
    """Ends a run at once, and nothing is tidied up."""


def kill_in_a_file(place: str) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        add = ResumableFile.add

        def adding(self: ResumableFile, *given: Any) -> None:
            if str(self.path).endswith(place) and self.batches == 1:
                raise Killed
            add(self, *given)

        monkeypatch.setattr(ResumableFile, "add", adding)

    return patch


def kill_in_training(place: str) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        training_step = base.AlignmentTrainer.training_step

        def stepping(self: Any, *given: Any) -> Any:
            if str(self.folder).endswith(place) and self.state.global_step == 1:
                raise Killed
            return training_step(self, *given)

        monkeypatch.setattr(base.AlignmentTrainer, "training_step", stepping)

    return patch


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(kill_in_a_file("held-out/answers.jsonl"), id="held out", marks=pytest.mark.slow),
        pytest.param(kill_in_a_file("iteration-2/answers.jsonl"), id="sampling"),
        pytest.param(kill_in_a_file("iteration-2/judged.jsonl"), id="reviewing", marks=pytest.mark.slow),
        pytest.param(kill_in_training("iteration-1/train"), id="training", marks=pytest.mark.slow),
        pytest.param(kill_in_training("iteration-2/train"), id="training further", marks=pytest.mark.slow),
    ],
)
def test_cut_online_killed_and_resumed_is_the_same_run(
    kill: Callable[[pytest.MonkeyPatch], None], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignment.launch.cut_online.REVIEWED_AT_ONCE", 2)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            main([*ONLINE, f"output_dir={folder}"])
    assert not (folder / "summary.json").exists()
    assert main([f"resume={folder}"]) == 0
    assert same_weights(folder, whole)
    for name in ("answers", "judged"):
        for stage in ("held-out", "iteration-1", "iteration-2"):
            assert said(folder / stage / f"{name}.jsonl") == said(whole / stage / f"{name}.jsonl")
    different = {"seconds", "peak_memory_mb", "finished", "overrides"}
    found, expected = summary_of(folder), summary_of(whole)
    assert {key for key in expected if found[key] != expected[key]} <= different


CRITICS = '''
from alignment.data.example import Judgment

class Pleased:
    def review(self, prompts, completions, context=None):
        return [Judgment("Good.", True) for _ in completions]

class Torn:
    """No verdict on some, words without a verdict on some, and praise where it is not satisfied."""
    def review(self, prompts, completions, context=None):
        known = [Judgment(), Judgment("Hm."), Judgment("Perfect.", False), Judgment("It is wrong.", False)]
        return [known[len(text) % 4] for text in completions]

class Silent:
    def review(self, prompts, completions, context=None):
        return [Judgment() for _ in completions]
'''


@pytest.fixture
def critics(tmp_path: Path) -> Path:
    (tmp_path / "critics.py").write_text(CRITICS)
    return tmp_path / "critics.py"


def test_judgments_that_teach_nothing_are_counted(critics: Path, tmp_path: Path) -> None:
    more = [f"feedback={critics}:Torn", "rollout.iterations=1", "rollout.prompts=16", "evaluation.prompts=0"]
    assert main([*ONLINE, *more, f"output_dir={tmp_path / 'run'}"]) == 0
    (row,) = summary_of(tmp_path / "run")["iterations"]
    texts = [
        it["messages"][0]["content"]
        for line in rows(tmp_path / "run/iteration-1/answers.jsonl")
        for it in line["responses"]
    ]
    kinds = [len(text) % 4 for text in texts]
    assert row["no_verdict"] == kinds.count(0) + kinds.count(1) > 0 and row["unusable"] == kinds.count(2)
    assert row["satisfactory"] == 0 and row["trained_on"] == row["unsatisfactory"] == kinds.count(3)


@pytest.mark.parametrize(
    ("critic", "says"),
    [("Pleased", "satisfied with all 6 answers of iteration 1"), ("Silent", "the critic gave no judgment")],
)
def test_nothing_to_learn_from_is_said(
    critic: str, says: str, critics: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = [f"feedback={critics}:{critic}", "evaluation.prompts=0"]
    assert main([*ONLINE, *more, f"output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and not (tmp_path / "run/iteration-1/train").exists()


def test_a_later_iteration_that_satisfies_ends_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from alignment.data.example import Judgment
    from alignment.feedback.plain_critic import PlainCritic

    def review(self: Any, prompts: Any, completions: Any, context: Any = None) -> list[Judgment]:
        return [Judgment("It is wrong.", (tmp_path / "run/iteration-2").exists()) for _ in completions]

    monkeypatch.setattr(PlainCritic, "review", review)
    assert main([*ONLINE, "rollout.iterations=5", f"output_dir={tmp_path / 'run'}"]) == 0
    assert "iteration 2: the critic is satisfied with all answers" in capsys.readouterr().out
    assert len(summary_of(tmp_path / "run")["iterations"]) == 1 and not (tmp_path / "run/iteration-2/train").exists()


def test_prompts_come_once_and_then_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = [{"prompt": f"Tell me about the number {number}."} for number in range(8)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    more = [
        f"data.path={tmp_path / 'prompts.jsonl'}",
        "rollout.prompts=3",
        "rollout.iterations=4",
        "evaluation.prompts=0",
    ]
    more += [
        "data.eval_fraction=0.25",
        "training.max_steps=1",
        "rollout.max_new_tokens=3",
        "feedback.satisfied_from=10",
    ]
    more += ["feedback.about=[brevity]"]
    assert main([*ONLINE, *more, f"output_dir={tmp_path / 'run'}"]) == 0
    assert "iteration 3: all 6 prompts were taken" in capsys.readouterr().out
    taken = [
        [row["prompt"][0]["content"] for row in rows(tmp_path / f"run/iteration-{number}/prompts.jsonl")]
        for number in (1, 2, 3, 4)
    ]
    assert len({*taken[0], *taken[1]}) == 6 and {*taken[2], *taken[3]} == {*taken[0], *taken[1]}
    assert taken[:2] != taken[2:]


def test_all_weights_go_on_from_iteration_to_iteration(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*ONLINE, "peft=none", "model.dtype=bfloat16", "evaluation.prompts=2", f"output_dir={folder}"]) == 0
    first, second = folder / "iteration-1/train", folder / "iteration-2/train"
    config = (second / "config.yaml").read_text()
    assert f"path: {first}/model" in config and "dtype: float32" in config
    assert not same_weights(first, second, "model.safetensors") and same_weights(folder, second, "model.safetensors")
    kl = [summary_of(place)["kl"]["mean"] for place in (first, second)]
    assert kl[0] != kl[1] and all(abs(value) > 0 for value in kl)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("feedback=length", "feedback=length writes no judgments: recipe=cut_online needs a critic"),
        ("feedback=null", "no critic: give feedback=NAME"),
        ("peft.path=somewhere", "give model.path=somewhere"),
        ("rollout.top_k=5", "rollout.top_k=5"),
        ("loss=sigmoid", "judged answers need a loss of their own"),
        ("judged.template=chatt", "unknown judged.template 'chatt': did you mean chat?"),
        ("rollout.iterations=0", "rollout.iterations=0: must be at least 1"),
        ("feedback.about=[words]", "feedback.about=['words']: a list of some of length"),
    ],
)
def test_mistakes_of_cut_online(change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*ONLINE, change, f"output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and len(error.strip().splitlines()) <= 2
    assert not (tmp_path / "run" / "held-out").exists()


@pytest.mark.parametrize("loss", ["nll", "sigmoid"])
def test_ilf(loss: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    assert main([*ILF, f"loss={loss}", f"output_dir={folder}"]) == 0
    for name in ("config.yaml", "report.html", "curves.png", "samples.jsonl", "metrics.jsonl", "model/README.md"):
        assert (folder / name).stat().st_size > 0, name
    summary, run = summary_of(folder), summary_of(folder / "2-train")
    assert summary["method"] == "ilf" and run["method"] == {"nll": "sft", "sigmoid": "dpo"}[loss]
    refined, pairs = summary["refined"], rows(folder / "1-refine/refined.jsonl")
    assert refined["asked"] == refined["refined"] + sum(
        refined[key] for key in ("unchanged", "empty", "cut", "too_long")
    )
    assert len(pairs) == refined["refined"] > 0
    assert run["data"]["train"]["answers" if loss == "nll" else "pairs"] == refined["refined"]
    for row in pairs:
        original, better = row["responses"]
        assert original["judgments"][0]["satisfactory"] is False and not better["judgments"]
        assert row["preferences"] == [{"first": 1, "second": 0, "p_first": 1.0, "margin": None}]
    asked = rows(folder / "1-refine/prompts.jsonl")[0]["prompt"][-1]["content"]
    assert "Feedback: " in asked and "Answer: " in asked
    held_out = rows(folder / "1-refine/held-out.jsonl")
    assert len(held_out) == 6 and summary["judged"]["satisfactory"]["answers"] <= 6
    assert {"right", "wrong", "right_first"} <= summary["judged"].keys()  # as of recipe=cut, so that they compare
    assert "answers refined" in capsys.readouterr().out
    assert main([f"resume={folder}"]) == 0
    assert "2-train: done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("loss=mle", "recipe=ilf imitates refined answers with loss=nll"),
        ("loss=kto", "this loss judges single answers"),
        ("ilf.template=chatt", "unknown ilf.template 'chatt': did you mean chat?"),
        ("ilf.refiner=tyni", "did you mean tiny"),
        ("data=everyday", "no judged answer to train on in everyday"),
        ("rollout.max_new_tokens=1", "unsatisfactory answers was refined: "),
    ],
)
def test_mistakes_of_ilf(change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*ILF, change, f"output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    told = error[error.index("error: ") :]
    assert says in told and "Traceback" not in error and len(told.strip().splitlines()) <= 2
    assert not (tmp_path / "run/2-train").exists()


def test_a_refinement_template_without_a_slot(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = "critique: '{instruction} {answer}'\nrefine: '{instruction} {answer}'\ndone: good\ncut: '…'\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert main([*ILF, f"ilf.template={tmp_path / 'mine.yaml'}", f"output_dir={tmp_path / 'run'}"]) == 2
    assert "refine must have the slot {judgment}" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = launch(["train.py", *ONLINE, f"output_dir={folder}"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("held-out/answers", "held-out/judged", "iteration-1/answers", "iteration-1/judged"):
        assert said(folder / f"{name}.jsonl") == said(whole / f"{name}.jsonl")
    found, expected = summary_of(folder), summary_of(whole)
    assert found["satisfied"]["before"] == expected["satisfied"]["before"] and found["steps"] == expected["steps"]
    assert found["iterations"][0]["trained_on"] == expected["iterations"][0]["trained_on"]
    assert done.stdout.count("satisfies plain_critic") == 1  # rank 0 alone speaks
    assert same_weights(folder, folder / "iteration-2/train")
    done = launch(["train.py", *ILF, f"output_dir={tmp_path / 'ilf'}"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert summary_of(tmp_path / "ilf")["refined"]["refined"] == len(rows(tmp_path / "ilf/1-refine/refined.jsonl"))
