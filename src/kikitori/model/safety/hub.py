"""Files of models on the Hugging Face hub, as folders of its download cache.

Without network what the cache has is read, at once: the readers of transformers ask again for every file that is not
there, for 23 s each. Only our own lines are seen.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from kikitori.errors import ModelError, first_line
from kikitori.io.progress import note

CONFIG = "config.json"
REASONS = (
    (GatedRepoError, "its terms have to be accepted first", "do so on its page, then hf auth login"),
    (RepositoryNotFoundError, "there is none, or it is private", "check the path or the hub id, or hf auth login"),
    (
        LocalEntryNotFoundError,
        "the hub cannot be reached, and the cache has none",
        "check the network, or give a folder",
    ),
)
"""What may be wrong, in words, with what to do; by the error of the hub's client, the first that fits."""


def snapshot(model_id: str, patterns: Sequence[str]) -> Path:
    """The folder of the cache with a model's newest files that fit one of the patterns, in which `*` crosses folders.

    Where the hub cannot be reached, it is the folder of what was fetched before.

    Raises:
        ModelError: There is no such model, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    first = not isinstance(try_to_load_from_cache(model_id, CONFIG), str)
    if first and not constants.HF_HUB_OFFLINE:
        note(f"fetching {model_id} from the hub, the first time alone")
    with _quiet_client(bars=first and sys.stderr.isatty()):
        try:
            return Path(snapshot_download(model_id, allow_patterns=[*patterns]))
        except Exception as error:  # noqa: BLE001  (what a network can raise has no end)
            known = ((why, remedy) for kind, why, remedy in REASONS if isinstance(error, kind))
            why, remedy = next(known, (first_line(error), "check the path or the hub id"))
            what = patterns[0] if len(patterns) == 1 else "it"
            raise ModelError(f"{what} cannot be fetched ({why})", where=model_id, remedy=remedy) from None


def hub_id(folder: Path) -> str | None:
    """The id of the model whose files a folder of the cache holds; None for any other folder."""
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/")


@contextmanager
def _quiet_client(*, bars: bool) -> Iterator[None]:
    """No warnings of the hub's client inside, and bars of downloads where asked for."""
    verbosity, shown = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    if not bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if shown:
            enable_progress_bars()
