"""Feedback by name: what is built, from a mapping or a command line, and every wrong value's one line."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.feedback.adapters import BradleyTerry, Function
from alignment.feedback.build import KINDS, build_feedback, check_feedback
from alignment.feedback.panels import Ensemble
from alignment.feedback.rules import Length, PlainWords, Repetition
from alignment.feedback.settings import feedback_settings
from alignment.feedback.wrappers import Noise, Sum
from alignment.launch.assets import catalogue
from tests.feedback.toys import score

OWN = """
from dataclasses import dataclass

def shout(prompt, completion, context):
    return completion.count("!") + context.get("bonus", 0)

class Plain:
    def __init__(self, bonus=0):
        self.bonus = bonus
    def score(self, prompts, completions, context=None):
        return [float(self.bonus)] * len(completions)

@dataclass
class Strict:
    limit: int
    def score(self, prompts, completions, context=None):
        return [float(len(text) < self.limit) for text in completions]

class Nothing:
    pass

number = 3
"""


def test_a_name_or_a_mapping_with_feedback_inside() -> None:
    assert build_feedback("plain_words") == PlainWords()
    assert build_feedback({"name": "length", "unit": "characters"}) == Length("characters")
    total = build_feedback({"name": "sum", "of": ["length", {"name": "repetition", "n": 2}], "weights": [1, 2]})
    assert total == Sum([Length(), Repetition(2)], [1, 2])
    noisy = build_feedback({"name": "noise", "of": {"name": "ensemble", "of": ["length", "plain_words"]}})
    assert isinstance(noisy, Noise) and isinstance(noisy.of, BradleyTerry) and isinstance(noisy.of.of, Ensemble)


def test_every_kind_is_where_the_table_says() -> None:
    for name, place in KINDS.items():  # without importing torch for those that need it
        module, _, attribute = place.partition(":")
        spec = find_spec(module)
        assert spec is not None and spec.origin is not None, name
        assert f"\nclass {attribute}(" in (source := Path(spec.origin).read_text()) or f"\nclass {attribute}:" in source


def test_ones_own_function_and_class(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    function = build_feedback(f"{file}:shout")
    assert isinstance(function, Function)
    assert score(function, "Oh!", "no") == [1.0, 0.0]
    assert function.score([[]], ["Oh!"], [{"bonus": 2}]) == [3.0]
    assert score(build_feedback({"name": f"{file}:Plain", "bonus": 2}), "x") == [2.0]
    assert score(build_feedback({"name": f"{file}:Strict", "limit": 3}), "ab", "abc") == [1.0, 0.0]
    for settings, said in [
        ({"name": f"{file}:shout", "loud": 1}, "shout is a function, it takes no settings"),
        ({"name": f"{file}:Strict", "limits": 3}, "has no such setting; did you mean limit?"),
        ({"name": f"{file}:Strict"}, "feedback.limit is needed"),
        ({"name": f"{file}:Plain", "malus": 3}, "unexpected keyword argument 'malus'"),
        ({"name": f"{file}:Nothing"}, "Nothing has none of the methods score, prefer and review"),
        ({"name": f"{file}:number"}, "neither a class nor a function"),
        ({"name": f"{file}:gone"}, "there is no gone in"),
        ({"name": "nowhere.py:f"}, "no file nowhere.py"),
    ]:
        with pytest.raises(UserError) as caught:
            build_feedback(settings)
        assert said in str(caught.value) and "\n" not in str(caught.value)


WRONG = [
    ({}, "feedback needs a name"),
    ({"name": "lenght"}, "unknown feedback 'lenght': did you mean length?"),
    ({"name": "length", "targt": 3}, "feedback.targt: length has no such setting; did you mean target?"),
    ({"name": "length", "unit": "wrods"}, "feedback.unit=wrods: did you mean words?"),
    ({"name": "length", "target": 0}, "feedback.target=0: a whole number of at least 1 is needed"),
    ({"name": "length", "target": "many"}, "feedback.target=many: a whole number"),
    ({"name": "plain_words", "fewest": True}, "feedback.fewest=True: a whole number"),
    ({"name": "repetition", "n": -1}, "feedback.n=-1: a whole number of at least 1"),
    ({"name": "repetition", "n": 1.5}, "feedback.n=1.5: a whole number"),
    ({"name": "regex"}, "feedback.pattern is needed by regex"),
    ({"name": "regex", "pattern": "("}, "feedback.pattern=(: not a regular expression: missing )"),
    ({"name": "regex", "pattern": 3}, "feedback.pattern=3: a text is needed"),
    ({"name": "regex", "pattern": "a", "found": "no"}, "feedback.found=no: true or false is needed"),
    ({"name": "json_valid", "keys": "a"}, "feedback.keys=a: a list of texts"),
    ({"name": "exact_match", "normalise": "word"}, "feedback.normalise=word: did you mean words?"),
    ({"name": "numeric_match", "tolerance": -1}, "feedback.tolerance=-1: a number of at least 0"),
    ({"name": "numeric_match", "thousands": "coma"}, "did you mean comma?"),
    ({"name": "rouge", "variant": "rouge3"}, "feedback.variant=rouge3: did you mean"),
    ({"name": "rouge", "value": "f1"}, "feedback.value=f1: did you mean f?"),
    ({"name": "bleu", "tokenize": "13b"}, "feedback.tokenize=13b: did you mean 13a?"),
    ({"name": "readability", "index": "flesh_reading_ease"}, "did you mean flesch_reading_ease"),
    ({"name": "profanity", "measure": "shares"}, "did you mean share?"),
    ({"name": "sum", "of": "length"}, "feedback.of="),
    ({"name": "sum", "of": []}, "feedback.of=[]: a list of feedback is needed"),
    ({"name": "sum", "of": ["length"], "weights": [1, 2]}, "feedback.weights=[1, 2]: a list of 1 numbers is needed"),
    ({"name": "sum", "of": ["length"], "weights": [float("nan")]}, "a list of 1 numbers"),
    ({"name": "sum", "of": ["length", "lenght"]}, "unknown feedback.of[1] 'lenght'"),
    ({"name": "noise", "of": {"name": "length", "target": 0}}, "feedback.of.target=0"),
    ({"name": "noise", "of": "length", "rate": 0.7}, "feedback.rate=0.7: a number between 0 and 0.5"),
    ({"name": "noise", "of": 3}, "int has none of the methods"),
    ({"name": "ties", "of": "length", "verdict": "non"}, "feedback.verdict=non: did you mean none?"),
    ({"name": "bradley_terry", "of": "length", "temperature": 0}, "feedback.temperature=0"),
    ({"name": "satisfied", "of": "length"}, "Length writes no reviews"),
    ({"name": "ensemble", "of": ["length"], "vote": "majority"}, "rewards have no votes"),
    ({"name": "ensemble", "of": ["length"], "weights": [-1]}, "a list of 1 numbers of at least 0"),
    ({"name": "ensemble", "of": ["length"], "weights": [0]}, "one of them must be greater than 0"),
    ({"name": "ensemble", "of": ["length"], "scales": [0]}, "feedback.scales=[0]"),
    ({"name": "ensemble", "of": [{"name": "noise", "of": "length"}], "scales": [1]}, "only rewards are standardised"),
    ({"name": "peer_review", "of": ["length"], "marks": [[0.5, 0.5]]}, "no member passed"),
    ({"name": "peer_review", "of": ["length"], "marks": [0.9]}, "1 of [accuracy, consistency]"),
    ({"name": "peer_review", "of": ["length"], "marks": [[0.9, 0.9]], "weighting": "odds"}, "did you mean log_odds?"),
    ({"name": "cached", "of": "length", "folder": 3}, "feedback.folder=3: a text is needed"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_value_is_refused_with_one_line(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as caught:
        build_feedback(settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_names_are_checked_without_building() -> None:
    check_feedback({"name": "regex", "pattern": "("})  # a value is the business of building
    for settings, said in [
        ({"name": "ensemble", "of": ["length", {"name": "noise", "of": "lenght"}]}, "feedback.of[1].of 'lenght'"),
        ({"name": "ensemble", "of": [{"name": "length", "x": 1}]}, "feedback.of[0].x: length has no such setting"),
        (3, "feedback=3: a name, or a section"),
    ]:
        with pytest.raises(UserError) as caught:
            check_feedback(settings)  # type: ignore[arg-type]
        assert said in str(caught.value)


# The command line.


def test_words_of_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("name: sum\nof: [{name: length}]\nweights: [2.0]\n")
    assert feedback_settings(["feedback=repetition"]) == {"name": "repetition", "n": 4}  # configs/feedback
    assert feedback_settings(["feedback=regex", "feedback.pattern=a"]) == {"name": "regex", "pattern": "a"}
    assert feedback_settings(["feedback=length", "feedback.target=7"])["target"] == 7
    assert feedback_settings(["feedback=mine.yaml", "feedback.weights=[3]"])["weights"] == [3]
    assert feedback_settings(["feedback=own.py:shout"]) == {"name": "own.py:shout"}
    nested = feedback_settings(["feedback=noise", "feedback.of=mine.yaml", "feedback.of.weights=[4e-1]"])
    assert nested == {"name": "noise", "of": {"name": "sum", "of": [{"name": "length"}], "weights": [0.4]}}
    both = feedback_settings(["feedback=ensemble", "feedback.of=[length,{name: repetition}]"])
    assert both == {"name": "ensemble", "of": ["length", {"name": "repetition"}]}
    Path("feedback").mkdir()
    Path("feedback/ours.yaml").write_text("name: length\ntarget: 3\n")
    assert feedback_settings(["feedback=ours"], config_dir=".") == {"name": "length", "target": 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no feedback: give feedback=NAME"),
        (["feedback.n=3"], "no feedback: give feedback=NAME"),
        (["feedback=lenght"], "unknown feedback 'lenght': did you mean length?"),
        (["feedback=nowhere.yaml"], "feedback=nowhere.yaml: no such file"),
        (["feedback"], "'feedback': write feedback=NAME or feedback.key=value"),
        (["data=x"], "'data=x': write feedback=NAME"),
        (["feedback=length", "feedback.target=[1"], "feedback.target=[1: cannot be read"),
        (["feedback=noise", "feedback.of=lenght"], "unknown feedback 'lenght'"),
    ],
    ids=str,
)
def test_a_wrong_word(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        feedback_settings(words)
    assert said in str(caught.value) and str(caught.value).count("\n") <= 1


def test_every_shipped_file_names_all_right(monkeypatch: pytest.MonkeyPatch) -> None:
    files = catalogue().groups["feedback"]
    assert {"length", "plain_words", "noisy_plain_words"} <= set(files)
    for name, file in files.items():
        check_feedback(feedback_settings([f"feedback={name}"]), name)
        assert file.read_text().startswith("# "), name
