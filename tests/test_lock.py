"""constraints.txt, which `make lock` writes: all that `make demo` and `make test` install, for any machine."""

import re
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
LINES = [line for line in LOCK.splitlines() if not line.startswith("#")]
OF_CUDA = re.compile("nvidia-|cuda-|triton$")  # the CUDA build of torch names their releases itself


def needed(distribution, extras, found):
    """Adds to `found` the packages that a distribution needs here, with their extras, and those that they need."""
    for requirement in map(Requirement, requires(distribution) or ()):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name, more = canonicalize_name(requirement.name), {"", *requirement.extras}
        if not more <= found.get(name, set()):
            found.setdefault(name, set()).update(more)
            needed(name, more, found)
    return found


@pytest.mark.parametrize("line", LINES)
def test_each_line_names_a_release_and_neither_build_nor_place(line):
    requirement = Requirement(line)
    release = Version(str(requirement.specifier).removeprefix("=="))
    assert requirement.url is None
    assert release.local is None
    assert line.partition(" ; ")[0] == f"{canonicalize_name(requirement.name)}=={release}"


def test_comments_name_no_place():
    assert not re.search(r"[/\\@]|--", LOCK)


def test_no_package_is_named_twice():
    names = [Requirement(line).name for line in LINES]
    assert len(set(names)) == len(names)


def test_what_pyproject_pins_is_kept():
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    assert set(pinned["constraint-dependencies"]) <= set(LINES)


def test_all_that_is_installed_is_named():
    names = set(needed("kikitori", {"dev"}, {})) - {"kikitori"}
    assert {"torch", "transformers", "peft", "av", "llvmlite", "huggingface-hub"} <= names
    specifiers = {requirement.name: requirement.specifier for requirement in map(Requirement, LINES)}
    others = [name for name in names & specifiers.keys() if version(name) not in specifiers[name]]
    if others:
        pytest.skip(f"other releases than the locked ones are installed: {', '.join(sorted(others))}")
    assert sorted(name for name in names - specifiers.keys() if not OF_CUDA.match(name)) == []
