"""PIT, stage 1: the improver M_PIT(y_w | x, y_l), by imitation (2310.00898, sec. 3.1).

View: improvements (prompt, reference answer, better answer), out of any pairs. Groups: one, the prompt that holds the
reference answer, with the better answer. Models: the policy alone. Loss: losses/likelihood.py. The ordinary policy
M_P(y_w | x) of the same stage is recipe=sft.
"""

from __future__ import annotations

from alignment.batching.improvements import Showing
from alignment.config import PITConfig, RunConfig
from alignment.data.improvement_prompts import load_improvement_template
from alignment.trainers.inputs import Source, TrainingData, load_improvements
from alignment.trainers.sft import SFTTrainer


class ImproverTrainer(SFTTrainer):
    """Train a policy to write better answers than those in its prompts.

    Args: as of `PolicyTrainer`; `train` and `eval` may be lists of `Improvement`.
    """

    method = "pit_sft"

    def choose_loss(self, config: RunConfig) -> None:
        super().choose_loss(config)
        self.showing = showing_of(config.pit)

    def load(self, train: Source, evaluation: Source, tokenizer: object, config: RunConfig) -> TrainingData:
        return load_improvements(train, evaluation, tokenizer, config, self.showing)


def showing_of(pit: PITConfig) -> Showing:
    """How reference answers stand in prompts. UserError for a template that does not exist or is broken."""
    return Showing(load_improvement_template(pit.template), pit.max_reference_length)
