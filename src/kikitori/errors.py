"""The one family of errors that kikitori raises on purpose.

Every message is a single line that says where (file, utterance or configuration key), what is wrong, and what to do.
"""


class KikitoriError(Exception):
    """Base of all errors meant for the user; the command line prints them without a traceback.

    Args:
        what: What is wrong, in a few words.
        where: The file, utterance id or configuration key concerned.
        remedy: What the user can do about it.
    """

    code = "error"

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        message = what if where is None else f"{where}: {what}"
        if remedy is not None:
            message = f"{message}; {remedy}"
        super().__init__(" ".join(message.split()))


class AudioError(KikitoriError):
    """An audio file that cannot be read as speech."""

    code = "audio"


class ConfigError(KikitoriError):
    """A recipe, a decoding file or an override that does not fit its schema."""

    code = "config"


class DataError(KikitoriError):
    """A manifest, a text file or an utterance that cannot be used."""

    code = "data"


class ModelError(KikitoriError):
    """A model folder that is incomplete, unsafe or does not fit its use."""

    code = "model"


class TrainingError(KikitoriError):
    """A training run that cannot start, go on or be resumed."""

    code = "training"


class KikitoriWarning(UserWarning):
    """Something that works and is still not what the user can have wanted."""


def first_line(error: BaseException) -> str:
    """What to quote of an error of a library: its first line, with the next where it only announces that one."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    announced = f" {lines[1].strip()}" if len(lines) > 1 and lines[0].rstrip().endswith(":") else ""
    return f"{lines[0].rstrip()}{announced}"[:300]


def counted(number: int, noun: str) -> str:
    """A number with its noun, for messages: `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
