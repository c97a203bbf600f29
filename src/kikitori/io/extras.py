"""Packages that only some work needs, by the extra of kikitori that installs them."""

from importlib.util import find_spec

from kikitori.errors import ConfigError

EXTRAS = {
    "av": "audio",
    "peft": "train",
    "matplotlib": "train",
    "pyopenjtalk": "synthesis",
    "pyarrow": "data",
    "ray": "ray",
    "faster_whisper": "baselines",
}


def require(package: str, what: str, *, where: object = None) -> None:
    """Refuses work that needs a package which is not installed, before any of it is done.

    Raises:
        ConfigError: With the command that installs it.
    """
    if find_spec(package) is None:
        raise missing(package, what, where=where)


def missing(package: str, what: str, *, where: object = None) -> ConfigError:
    """The error of a package that is not installed."""
    extra = EXTRAS.get(package)
    remedy = f"pip install 'kikitori[{extra}]'" if extra else f"pip install {package}"
    return ConfigError(f"{what} the package {package}, which is not installed", where=where, remedy=remedy)
