"""The sections of a recipe for the optimiser and for the run: how fast, how long and how carefully."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.train.recipe.types import STRICT, AtLeastOne, Count, Fraction, NotNegative, Positive


@dataclass(frozen=True, config=STRICT)
class Cosine:
    """Linear warm-up, then cosine decay; both as fractions of the training."""

    kind: Literal["cosine"]
    warmup: Fraction = 0.05
    final: Fraction = 0.01


@dataclass(frozen=True, config=STRICT)
class Piecewise:
    """Linear pieces between (fraction of training, factor on the learning rate) points (papers.md B2.2)."""

    kind: Literal["piecewise"]
    points: list[tuple[Fraction, Fraction]] = Field(
        default_factory=lambda: [(0.0, 0.01), (0.45, 1.0), (0.9, 0.01), (1.0, 0.001)]
    )

    def __post_init__(self) -> None:
        """Checks the order of the points."""
        fractions = [fraction for fraction, _ in self.points]
        if fractions != sorted(fractions) or not fractions or fractions[0] != 0.0 or fractions[-1] != 1.0:
            raise ValueError("points must rise from fraction 0.0 to 1.0")


@dataclass(frozen=True, config=STRICT)
class Optim:
    """Optimiser and schedule.

    Attributes:
        lr: Peak learning rate of AdamW.
        schedule: `cosine` or `piecewise`.
        weight_decay: Not applied to biases, norms and embeddings.
        max_grad_norm: Global gradient clipping.
        accumulate: Batches per step.
        label_smoothing: Of the cross-entropy on text.
    """

    lr: Positive
    schedule: Annotated[Cosine | Piecewise, Field(discriminator="kind")] = Field(
        default_factory=lambda: Cosine(kind="cosine")
    )
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive = 5.0
    accumulate: AtLeastOne = 1
    label_smoothing: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class Run:
    """How long and how carefully.

    Attributes:
        epochs: Passes over the training data.
        precision: `float32` or `bfloat16` (autocast; weights stay in float32).
        device: `auto`, `cpu` or `cuda`.
        gradient_checkpointing: Keep only the inputs of the encoder's and the LLM's layers for the backward pass and
            compute the rest again there: less memory, about a third more time, the same gradients.
        sharding: What each of several processes holds: `none` all of the model (DDP), `fsdp` a piece of each parameter,
            its gradient and its averages (FSDP2).
        evaluate_every: Epochs between evaluations on dev.
        log_every: Steps between lines of the log.
        profile: Steps, after the first two, of which `profile.txt` says what they spend their time on; 0 for none.
        checkpoint_every: Steps between checkpoints within an epoch; one is always written at its end.
        keep_checkpoints: Newest checkpoints kept.
        average_best: Export the mean of the weights after so many epochs, those with the best dev scores.
        average_last: Export the mean of the weights after the last so many epochs instead; 0 means the best.
        patience: End the training after so many evaluations on dev without a better score; 0 goes on to the end.
    """

    epochs: AtLeastOne
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    evaluate_every: AtLeastOne = 1
    log_every: AtLeastOne = 20
    profile: Count = 0
    checkpoint_every: AtLeastOne = 1000
    keep_checkpoints: AtLeastOne = 2
    average_best: AtLeastOne = 1
    average_last: Count = 0
    patience: Count = 0

    def __post_init__(self) -> None:
        """Checks that one kind of average is asked for."""
        if self.average_last and self.average_best > 1:
            raise ValueError("average_last and average_best exclude each other")
