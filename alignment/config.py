"""The schema of a run: what `recipe=…` composes, and what a trainer takes. One dataclass a group.

Hydra checks every key and type against these classes, so a misspelt key is an error and not a silent default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

# What may stand in the loss section beside any loss's own parameters; see docs/losses.md.
LOSS_MODIFIERS = ("divergence", "divergence_alpha", "weighting", "ld_alpha")
PARTS = ("sft", "reward", "rl")  # of data.part: a third of the prompts each, for the three stages of a method


@dataclass
class ModelConfig:
    """Which model is trained."""

    name: str = "custom"  # shown in summaries
    path: Optional[str] = None  # a built-in's name, a folder, a hub id or a GGUF file
    revision: Optional[str] = None  # of a hub id
    dtype: str = "float32"  # of the weights in memory: auto | float32 | bfloat16 | float16
    # Of the frozen base under an adapter: 8bit (LLM.int8) | 4bit (NF4, as in QLoRA); null: none; docs/fine_tuning.md.
    quantization: Optional[str] = None
    attention: str = "auto"  # auto: SDPA, on a GPU with block masks for long rows | sdpa | eager | flex_attention
    chat_template: Optional[str] = None  # a Jinja file that replaces the tokenizer's own template
    trust_remote_code: bool = False  # run the Python that comes with the model; the command line must say so
    allow_pickle: bool = False  # weights that are a pickle (pytorch_model.bin), where there are no safetensors
    # Of a reward model: a score for each kind of preference, averaged when used. A pair is of the kind that its
    # example's meta.objective says, else of that of its file. Empty: one score.
    objectives: List[str] = field(default_factory=list)


@dataclass
class DataConfig:
    """Which preferences it is trained on, and how they become token ids.

    A path is a file, folder, glob, hub id or built-in set (`everyday`), or a mapping {path: weight} that mixes several.
    """

    path: Any = None
    eval_path: Any = None  # held-out pairs; null: `eval_fraction` of the training prompts is held out
    format: str = "auto"  # decided per row; or the one format, by name or path/to/format.py
    split: str = "train"  # of a folder, hub id or built-in set
    eval_split: str = "test"
    eval_fraction: float = 0.1
    part: Optional[str] = None  # sft | reward | rl: train on that third of the prompts, by their hash; null: on all
    limit: Optional[int] = None  # at most so many training examples (taken after a seeded shuffle)
    eval_limit: Optional[int] = 256
    template: str = "chat"  # chat: the tokenizer's template; raw: the text as it stands
    max_prompt_length: int = 512  # tokens; a longer prompt is a bad row
    max_completion_length: int = 512  # tokens; a longer completion is cut, counted and shown
    on_bad_row: str = "skip"  # skip: counted and listed; stop: the first one ends the run
    workers: Optional[int] = None  # processes that prepare a large set; null: one for each core
    cache: Any = True  # of a large set, prepared, by content: true: in the user's cache folder; a folder; false: none
    streaming: bool = False  # read while training, for sets larger than the disk; needs training.max_steps
    shuffle_buffer: int = 5000  # of a stream: how many examples are in memory, and shuffled


@dataclass
class PeftConfig:
    """Which weights are trained: `lora` adapters, or `none` for all weights."""

    method: str = "lora"
    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: Any = "all-linear"
    path: Optional[str] = None  # an adapter on this model, or the run that made it, to go on with; null: a fresh one


@dataclass
class ReferenceConfig:
    """The policy that the KL term holds on to."""

    kind: str = "auto"  # auto | adapter_off | frozen_copy
    path: Optional[str] = None  # another model as reference (frozen_copy)
    when: str = "step"  # step: scored beside the policy; precompute: scored once, before the first step
    cache: Any = True  # of precomputed log-probs, by content: true: in the user's cache folder; a folder; false: none
    update_steps: Optional[int] = None  # TR-DPO: the reference follows the policy every so many steps
    update_rate: float = 1.0  # … by this share of the way; 1 copies the policy


@dataclass
class TrainingConfig:
    """Optimisation. One step is `batch_size` examples over all processes, whatever the token budget."""

    learning_rate: float = 5e-6
    batch_size: int = 16
    epochs: float = 1.0
    max_steps: Optional[int] = None  # overrides epochs
    token_budget: int = 4096  # tokens of one micro-batch; changes memory and speed, never the update
    layout: str = "shared"  # shared: one prompt for all its completions; padded: the plain reference layout
    bf16: Any = "auto"  # bfloat16 autocast: true | false | auto: where the hardware computes it
    optimizer: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    scheduler: str = "linear"
    warmup_ratio: float = 0.1
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    logging_steps: int = 1
    eval_steps: Optional[int] = None  # held-out accuracy every so many steps
    save_steps: Optional[int] = None  # checkpoint every so many steps; null: on SIGTERM, and until the end is measured
    save_total_limit: int = 2
    keep_best: bool = False  # end with the checkpoint of the best held-out metric
    best_metric: str = "accuracy"
    early_stopping: Optional[int] = None  # stop after so many evaluations without a better one
    skip_nonfinite: int = 3  # steps in a row with a NaN or infinite loss or gradient that are skipped; one more stops
    report_to: List[str] = field(default_factory=list)  # wandb | tensorboard | trackio


@dataclass
class EvaluationConfig:
    """The end-of-run table: the model answers held-out prompts before and after."""

    prompts: int = 64  # 0 turns sampling off; those over data.max_prompt_length are passed over
    score: Any = None  # ground truth of an answer: any feedback, by name or as a section; null: no score column
    max_new_tokens: int = 64
    temperature: float = 0.7
    top_p: float = 1.0
    batch_size: int = 32
    shown: int = 6  # answers side by side
    judge_sets: List[str] = field(default_factory=list)  # further pairs for a reward model, data.eval_limit of each
    judged: Any = None  # held-out judged answers whose log-probs the table shows of any policy; recipe=cut has its own


@dataclass
class RolloutConfig:
    """How an online method samples. A phase samples `prompts` prompts, and then takes `epochs` passes over them."""

    prompts: int = 16  # of a phase, over all processes: a multiple of training.batch_size
    completions: int = 2  # of each prompt
    epochs: int = 1  # passes over a phase's prompts, training.batch_size of them a step
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    batch_size: int = 32  # completions decoded at once
    missing_end_penalty: float = 0.0  # taken off the reward of an answer that was cut at max_new_tokens
    scale_rewards: bool = False  # divide rewards by their standard deviation within prompts, over the phase
    mixture: float = 0.125  # nash_md: the opponent's beta: 0 self-play, 1 best response to the reference
    mixture_end: Optional[float] = None  # where it is at the end of the run, changed linearly
    opponent_decay: Optional[float] = None  # nash_md: the opponent is the mean of past policies (Nash-EMA); 0.999
    kl_coef_end: Optional[float] = None  # the KL's coefficient (loss.kl_coef, loss.tau) at the end of the run, linearly
    kl_limit: Optional[float] = None  # nats an answer, over a phase
    on_kl_limit: str = "warn"  # warn | stop | raise: the coefficient of the KL, by half
    iterations: int = 3  # cut_online: how often a phase is sampled, judged and trained on


@dataclass
class JudgedConfig:
    """Written judgments of answers (recipe=cut), and how one stands in a prompt."""

    template: str = "chat"  # chat | alpaca, or a YAML file of your own
    satisfied_from: Optional[float] = None  # an answer without a verdict is satisfactory from this score on
    downsample: Optional[float] = None  # at most so many satisfactory training answers for each unsatisfactory one


@dataclass
class ILFConfig:
    """Who rewrites judged answers (recipe=ilf), and how it is asked."""

    refiner: Optional[str] = None  # a built-in's name, folder, run folder, hub id or GGUF file; null: the policy itself
    template: str = "chat"  # chat | alpaca, or a YAML file of your own


@dataclass
class PITConfig:
    """PIT (recipe=pit_sft, recipe=pit): how a reference answer stands in the prompt, and whose answers are improved."""

    template: str = "chat"  # chat | alpaca, or a YAML file of your own
    max_reference_length: int = 256  # tokens; a longer reference answer loses its end, is marked, counted and shown
    references: str = "curriculum"  # curriculum: the data's, then the policy's | data | policy | mixed
    policy: Optional[str] = None  # M_P, whose answers are the policy's: a run, folder or hub id; null: model.path
    switch: str = "share"  # what ends the data's turn: share | epoch | plateau
    switch_at: float = 0.5  # … of the run's steps; passes over the data's answers; phases without a higher mean gap
    stages: Dict[str, Any] = field(default_factory=dict)  # pit_full: stage -> its settings, over those of the run


@dataclass
class GuardConfig:
    """Signs that preference training goes wrong, by its metrics, and what is done. A null limit is not looked at."""

    action: str = "warn"  # warn | stop | roll_back: stop, with the model of a checkpoint before it
    rows: int = 8  # of metrics.jsonl: means are over the first and over the latest so many
    chosen_logp_drop: Optional[float] = 1.0  # nats a token that chosen answers may lose from the start
    length_ratio: Optional[float] = 2.0  # online: sampled tokens an answer over those at the start
    log_ratio_limit: Optional[float] = None  # nats an answer: mean log pi/ref of the chosen or rejected ones
    held_out_looks: Optional[int] = 4  # evaluations (online: phases): the held-out mean fell, the trained one rose
    held_out: Any = None  # online: another reward on the same samples, by name or as a section; null: none


@dataclass
class RunConfig:
    """Everything one run needs."""

    recipe: str = "custom"
    description: str = ""
    method: str = "dpo"
    seed: int = 0
    output_dir: Optional[str] = None  # null: outputs/<recipe>/<time>
    resume: Optional[str] = None  # a run folder, or a checkpoint in one
    traceback: bool = False  # show the Python traceback of a user error
    # Python of one's own that a recipe may name: files and modules. On the command line alone.
    allow: List[str] = field(default_factory=list)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    peft: PeftConfig = field(default_factory=PeftConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    loss: Dict[str, Any] = field(default_factory=dict)  # configs/loss; empty: sigmoid
    feedback: Dict[str, Any] = field(default_factory=dict)  # configs/feedback: what scores, judges or criticises
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    judged: JudgedConfig = field(default_factory=JudgedConfig)
    ilf: ILFConfig = field(default_factory=ILFConfig)
    pit: PITConfig = field(default_factory=PITConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
