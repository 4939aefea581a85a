"""`align eval`: any number of models answer one prompt set, and are scored, compared and ranked.

Everything that takes time is kept in the folder by content: answers, log-probs, verdicts. So another score or model
asks for nothing that is there, and an evaluation that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignment.errors import UserError, unknown
from alignment.evaluation.files import write_atomically
from alignment.evaluation.models import heat_map, tasks
from alignment.evaluation.models.answers import Answers
from alignment.evaluation.models.cells import Cell
from alignment.evaluation.models.contestants import Contestant, chosen, contestants
from alignment.evaluation.models.diversity import Reader, Readings, contradictions_of, diversity_cells, vectors_of
from alignment.evaluation.models.duels import Duel, Scores, all_scores, duels
from alignment.evaluation.models.judged import adjusted, duel_cells, ranking, score_cells
from alignment.evaluation.models.likelihoods import answer_logps, held_out_text, read_text
from alignment.evaluation.models.measures import Likelihoods, answer_cells
from alignment.evaluation.models.notes import kl_heading, notes_of
from alignment.evaluation.models.opinions import Opinion, opinions
from alignment.evaluation.models.outcome import Evaluation
from alignment.evaluation.models.page import write_page
from alignment.evaluation.models.prompts import PromptSet, load_prompts
from alignment.evaluation.models.sampled import sampled_answers, slug
from alignment.evaluation.models.stored import stored_answers
from alignment.evaluation.models.tables import tables
from alignment.evaluation.models.verdicts import VerdictFile
from alignment.evaluation.models.weights import Weights
from alignment.feedback.adapters import close
from alignment.models.embeddings import Embedder
from alignment.models.entailment import Entailment, signs_of
from alignment.resumable import OneProcess
from alignment.rollouts.sample_file import Sampling

PAIRS = ("all", "baseline")


@dataclass(frozen=True)
class Asking:
    """What is evaluated besides the models and the prompts.

    Attributes:
        scores, judges: feedback by its name, a YAML file of its settings, the run of a scoring model (each also as
            NAME=WHAT), or an object.
        baseline: the model that the others are compared with; None: the first.
        pairs: which models the judges compare: all of them, or each with the baseline.
        reference: the model that the KL is measured to: one of the models, or another.
        embedder: the model whose mean hidden states are the answers' embeddings, for their distance.
        nli: a sequence classifier with NLI labels, for how far answers contradict each other.
        held_out: a file of text, for the perplexity.
        tasks: benchmarks of lm-eval.
        task_limit: at most so many examples of each.
    """

    scores: Sequence[Any] = ()
    judges: Sequence[Any] = ()
    baseline: str | None = None
    pairs: str = "all"
    reference: str | None = None
    embedder: str | None = None
    nli: str | None = None
    held_out: Path | None = None
    tasks: Sequence[str] = ()
    task_limit: int | None = None


def evaluate(
    models: Sequence[str],
    prompts: str,
    out: Path | str,
    asking: Asking | None = None,
    sampling: Sampling | None = None,
    *,
    format: str = "auto",
    split: str = "test",
    limit: int | None = None,
    answer_field: str | None = None,
    processes: OneProcess | None = None,
) -> Evaluation:
    """Answer `prompts` with `models`, measure and compare the answers, and write tables, JSON and pictures to `out`.

    Args:
        models: NAME=SPEC or SPEC: what `align sample` takes as a model, or a file of answers in any known format.
        prompts, format, split, limit, answer_field: as for `load_prompts`; the seed is that of `sampling`.
        out: a folder, which is made, or gone on with.
        sampling: how answers are drawn; None: one answer a prompt at temperature 1.
        processes: those of the launch, which share the work; None: this one alone.

    Raises:
        UserError: bad input of any kind, found as far as possible before anything is computed. A reward or judge that
            fails on the way is no error: see `Evaluation.failures`.
    """
    asking, sampling, processes = asking or Asking(), sampling or Sampling(n=1), processes or OneProcess()
    work = _Work(models, Path(out), asking, sampling, processes)
    work.prepare(prompts, format, split, limit, answer_field)

    def hint() -> str:
        return f"stopped: what was answered and judged is in {out}; the same command goes on"

    with _locked(work.folder, processes), processes.stoppable(hint):
        work.answer()
        work.measure()
        work.judge()
        found = work.result()
        processes.on_first(lambda: _write(found))
    return found


@dataclass
class _Work:
    """The steps of one evaluation, and what each leaves for the next."""

    words: Sequence[str]
    folder: Path
    asking: Asking
    sampling: Sampling
    processes: OneProcess
    answers: list[Answers] = field(default_factory=list)
    likelihoods: dict[str, Likelihoods] = field(default_factory=dict)
    readings: Readings = field(default_factory=Readings)
    cells: list[Cell] = field(default_factory=list)
    scored: dict[str, dict[str, Scores]] = field(default_factory=dict)
    duels: dict[str, list[Duel]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # notes on the way

    def prepare(self, prompts: str, format: str, split: str, limit: int | None, answer_field: str | None) -> None:
        """Read what was given, and refuse what can be refused before work begins."""
        asking, sampling = self.asking, self.sampling
        if asking.pairs not in PAIRS:
            raise unknown("choice of pairs", asking.pairs, PAIRS)
        self.models = contestants(self.words)
        self.baseline = chosen(asking.baseline, self.models, "--baseline") if asking.baseline else self.models[0]
        self.scores = opinions(asking.scores, "--score")
        self.judges = opinions(asking.judges, "--judge")
        for opinion in (*self.scores, *self.judges):
            if not opinion.loads_a_model:
                _ = opinion.feedback
        if self.judges and len(self.models) < 2:
            raise UserError("--judge compares models, and there is one\nMend: name a second model, or --score")
        if asking.held_out:
            read_text(asking.held_out)
        if asking.tasks:
            tasks.harness()
        self._prepare_readers()
        options: dict[str, Any] = {"format": format, "split": split, "limit": limit, "seed": sampling.seed}
        self.asked: PromptSet = load_prompts(prompts, **options, answer_field=answer_field)
        self.weights = {each.name: self._weights(each.spec) for each in self.models if not each.stored}
        self.reference = self._reference() if asking.reference else None
        for each in self.models:
            if each.stored:  # before the models with weights are asked for hours
                self.answers.append(stored_answers(each, self.asked, sampling.n))

    def _prepare_readers(self) -> None:
        """What looks at how the answers to a prompt differ; checked, and not loaded."""
        embedder, nli = self.asking.embedder, self.asking.nli
        if (embedder or nli) and self.sampling.n < 2:
            raise UserError(
                f"{'--embedder' if embedder else '--nli'} compares several answers to a prompt, and there is one"
                "\nMend: -n 2, or more"
            )
        self.embedder = Reader(embedder, Embedder) if embedder else None
        self.nli = Reader(nli, Entailment) if nli else None
        if nli:
            signs_of(nli)
        for reader in (self.embedder, self.nli):
            _ = reader and reader.key  # there is such a model

    def _weights(self, spec: str) -> Weights:
        return Weights(spec, self.sampling.dtype, self.sampling.template)

    def _reference(self) -> Weights:
        name = str(self.asking.reference)
        named: Contestant | None = next((each for each in self.models if each.name == name), None)
        if named is not None and named.stored:
            raise UserError(f"--reference {name} is a file of answers: a model with weights is needed")
        return self.weights[name] if named else self._weights(name)

    def answer(self) -> None:
        """Answers and likelihoods, one model in memory at a time."""
        for each in self.models:
            if each.stored:
                continue
            weights = self.weights[each.name]
            own = sampled_answers(each, weights, self.asked, self.sampling, self.folder, self.processes)
            self.answers.append(own)
            found = self.likelihoods[each.name] = Likelihoods()
            found.own = self._logps(own, weights)
            if self.asking.held_out:
                found.text = held_out_text(self.asking.held_out, weights, self.folder, self.processes)
            if self.asking.tasks:
                limit = self.asking.task_limit
                self.cells += tasks.task_cells(
                    each.name, weights, self.asking.tasks, self.folder, limit, self.processes
                )
            weights.release()
        order = [each.name for each in self.models]
        self.answers.sort(key=lambda one: order.index(one.of.name))
        if self.reference is not None:
            for one in self.answers:
                self._refer(one, self.reference)
            self.reference.release()

    def _logps(self, answers: Answers, under: Weights) -> list[list[float]]:
        return answer_logps(answers, self.asked, under, self.sampling.temperature, self.folder, self.processes)

    def _refer(self, answers: Answers, reference: Weights) -> None:
        """The answers under the reference, where it reads the same token ids."""
        name = answers.of.name
        if answers.of.stored:
            return
        if not reference.same_tokens(self.weights[name], self.asked.prompts):
            self.said.append(f"no KL of {name}: its tokens are not those of the reference {reference.spec}")
            return
        self.likelihoods[name].reference = self._logps(answers, reference)

    def measure(self) -> None:
        """Everything that needs no opinion."""
        base, seed, folder = self.baseline.name, self.sampling.seed, self.folder
        if self.embedder:
            for one in self.answers:
                self.readings.vectors[one.of.name] = vectors_of(one, self.embedder, folder, self.processes)
            self.embedder.release()
        if self.nli:
            for one in self.answers:
                self.readings.contradictions |= contradictions_of(one, self.nli, folder, self.processes)
            self.nli.release()
        self.cells += answer_cells(self.answers, self.likelihoods, base, seed)
        if self.sampling.n > 1:
            cells, notes = diversity_cells(self.answers, self.readings, base, seed)
            self.cells += cells
            self.said += notes

    def judge(self) -> None:
        """Ask rewards and judges; what one of them fails to say is missing, and the others are asked all the same."""
        for opinion in self.scores:
            file = VerdictFile(opinion, self.asked, self.folder, self.processes)
            found = self.scored[opinion.name] = all_scores(file, self.answers)
            self._asked(opinion, file)
            self.cells += score_cells(opinion.name, found, self.baseline.name, self.sampling.seed)
        for opinion in self.judges:
            file = VerdictFile(opinion, self.asked, self.folder, self.processes)
            own = duels(file, opinion, self._pairs())
            self._asked(opinion, file)
            self.duels[opinion.name] = own
            self.cells += duel_cells(opinion.name, own, self.baseline.name, len(self.asked), self.sampling.seed)

    def _asked(self, opinion: Opinion, file: VerdictFile) -> None:
        close(opinion.feedback)
        if file.failure is not None:
            self.failures[opinion.name] = file.failure

    def _pairs(self) -> list[tuple[Answers, Answers]]:
        if self.asking.pairs == "all":
            return list(combinations(self.answers, 2))
        base = next(one for one in self.answers if one.of.name == self.baseline.name)
        return [(one, base) for one in self.answers if one is not base]

    def result(self) -> Evaluation:
        """The cells with corrected p-values, and the tables made of them."""
        cells, standings = adjusted(self.cells), {}
        for name, own in self.duels.items() if self.asking.pairs == "all" else ():
            standings[name], why_not = ranking(own, len(self.asked), self.sampling.seed)
            self.said += [f"no ranking by {name}: {why_not}"] if why_not else []
        settings = {**asdict(self.sampling), "pairs": self.asking.pairs, "reference": self.asking.reference}
        settings |= {"embedder": self.asking.embedder, "nli": self.asking.nli}
        settings |= {"held out": str(self.asking.held_out) if self.asking.held_out else None}
        found = Evaluation(
            self.folder, self.asked, self.answers, self.baseline.name, settings, cells,
            scores=self.scored, duels=self.duels, standings=standings, failures=self.failures,
        )  # fmt: skip
        kl = kl_heading(self.sampling, self.asking.reference)
        found.tables = tables(cells, len(self.asked), self.baseline.name, standings, kl)
        found.notes = [*self.said, *notes_of(found, self.sampling)]
        return found


@contextmanager
def _locked(folder: Path, processes: OneProcess) -> Any:
    """The folder, made and held by this evaluation alone."""
    held: list[FileLock] = []

    def hold() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".eval.lock", timeout=0)
            lock.acquire()
            held.append(lock)
        except Timeout as error:
            raise UserError(f"{folder}: another evaluation writes it") from error
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error

    processes.on_first(hold)
    try:
        yield
    finally:
        for lock in held:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def _write(found: Evaluation) -> None:
    found.write()
    for old in found.folder.glob(heat_map.NAME.format("*")):  # of judges that are asked no more
        old.unlink()
    pictures: dict[str, bytes] = {}
    for name in found.duels:
        names, rates = found.matrix(name)
        if len(names) > 2 and found.settings["pairs"] == "all":
            title = f"Win rates by {name}"
            pictures[title] = heat_map.draw(names, rates, title)
            write_atomically(found.folder / heat_map.NAME.format(slug(name)), pictures[title])
    write_page(found, pictures)
