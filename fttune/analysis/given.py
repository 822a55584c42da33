"""What a result was given: its own run, and the search that chose its setting."""

from dataclasses import dataclass

from fttune.record import RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Trials with what they were asked to do and what they took; none, where there were none."""

    trials: int = 0
    steps: int = 0  # of the optimiser, that were asked for
    images: int = 0  # that the batches of these steps hold when they are full
    seconds: float = 0.0
    gpu_seconds: float = 0.0  # share of a GPU x seconds

    def __str__(self) -> str:
        gpu = f", {self.gpu_seconds:,.0f} GPU-s" if self.gpu_seconds else ""
        noun = "trial" if self.trials == 1 else "trials"
        return f"{self.trials:,} {noun}, {self.steps:,} steps, {self.seconds:,.0f} s{gpu}"

    def __add__(self, other: "Given") -> "Given":
        return Given(
            trials=self.trials + other.trials,
            steps=self.steps + other.steps,
            images=self.images + other.images,
            seconds=self.seconds + other.seconds,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
        )


NOTHING = Given()


def given(run: RunRecord) -> Given:
    """What one run took."""
    return Given(
        trials=1,
        steps=run.steps,
        images=run.steps * run.batch_size,
        seconds=run.seconds or 0.0,
        gpu_seconds=run.gpu_seconds or 0.0,
    )
