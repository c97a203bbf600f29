"""Under which conditions an evaluation was made: a rate needs those of the sound, a speed those of the machine."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import validate

HEADING = ("RTFx", "batch", "device", "dtype", "threads", "peak MB")


@dataclass(frozen=True, config=ConfigDict(extra="ignore", strict=True))
class Conditions:
    """Of an evaluation, whose clock starts behind a warm-up batch.

    Attributes:
        device: Where the networks computed, such as `cpu` or `cuda`, and what it is called.
        dtype: Arithmetic of the networks.
        batch_size: Utterances decoded together.
        threads: Of the CPU, in the networks.
        peak_memory_mb: The most that the process has held meanwhile, or of a GPU's memory the most that was taken; None
            where the system does not tell.
        corruption: What was done to the recordings, see `kikitori.data.corruption`; None where nothing was.
        seed: Of what was drawn for it.
    """

    device: str
    dtype: str
    batch_size: int
    threads: int
    peak_memory_mb: float | None = None
    corruption: str | None = None
    seed: int = 0

    def __str__(self) -> str:
        memory = "" if self.peak_memory_mb is None else f", at most {self.peak_memory_mb:.0f} MB"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"batches of {self.batch_size} in {self.dtype} on {self.device}, {threads}{memory}, after a warm-up batch"
        )

    @property
    def sound(self) -> str:
        """What was done to the recordings, in words; empty where nothing was."""
        return "" if self.corruption is None else f"corruption {self.corruption}, seed {self.seed}"

    def cells(self, rtfx: float | None) -> list[str]:
        """What stands below `HEADING`."""
        memory = "-" if self.peak_memory_mb is None else f"{self.peak_memory_mb:.0f}"
        return [speed(rtfx), f"{self.batch_size}", self.device, self.dtype, f"{self.threads}", memory]


def speed(rtfx: float | None) -> str:
    """Seconds of audio recognised in a second, for a table."""
    return "-" if rtfx is None else f"{rtfx:.1f}"


def unknown_cells(rtfx: float | None) -> list[str]:
    """The same of a system whose conditions are not known."""
    return [speed(rtfx), *("-" for _ in HEADING[1:])]


def read_conditions(values: object) -> Conditions | None:
    """The conditions that a report holds; None of one that holds none."""
    try:
        return validate(Conditions, values, "conditions") if isinstance(values, dict) else None
    except ConfigError:
        return None
