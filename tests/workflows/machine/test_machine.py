"""`kikitori list` and `kikitori doctor`."""

import json
import shutil

import pytest

from kikitori import loading
from kikitori.cli.common import SOME_FAILED
from kikitori.errors import ModelError
from kikitori.io.model_folder import BASE
from kikitori.model.published.part import PARTS
from kikitori.workflows.machine import checks
from kikitori.workflows.machine.models import describe, models_at_hand
from tests.commands import call
from tests.tiny import save_tiny, save_tiny_whisper, tiny_acoustic_model, tiny_whisper


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder with a Whisper, an acoustic model, a damaged folder and one that is no recogniser."""
    save_tiny_whisper(tmp_path / "whisper-x", tiny_whisper())
    save_tiny(tmp_path / "ours", tiny_acoustic_model())
    for name, content in (("bert", '{"model_type": "bert"}'), ("broken", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    monkeypatch.setenv(PARTS, str(tmp_path))
    monkeypatch.setattr("kikitori.workflows.machine.models.scan_cache_dir", lambda: _Empty())
    monkeypatch.setattr(loading, "CHECKOUT", tmp_path / "none")
    return tmp_path


class _Empty:
    repos = ()


def test_models_at_hand(parts):
    found = {model.name: model for model in models_at_hand()}
    assert {*found} == {"tiny-en", *(str(parts / name) for name in ("whisper-x", "ours", "broken"))}
    assert found["tiny-en"].language == "en"
    assert found["tiny-en"].kind.startswith("whisper-tiny.en with CTC heads")
    assert 40 < found["tiny-en"].megabytes < 70
    assert found[str(parts / "whisper-x")].kind == "Whisper"
    assert found[str(parts / "ours")].kind == "acoustic model"
    assert "config.json" in found[str(parts / "broken")].problem
    assert describe("x", parts / "bert") is None
    lines = call("list").stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].split() == f"tiny-en {found['tiny-en'].kind} en {found['tiny-en'].megabytes:.0f} MB".split()


def test_a_part_names_the_base_that_it_needs(parts):
    shutil.copytree(parts / "ours", parts / "heads")
    config = json.loads((parts / "heads" / "config.json").read_text())
    for base, problem in (("openai/whisper-x", None), ("openai/whisper-y", "needs openai/whisper-y, from the hub or")):
        (parts / "heads" / "config.json").write_text(json.dumps(config | {BASE: {"name": base}}))
        found = describe("heads", parts / "heads")
        assert found.kind == f"{base.rpartition('/')[2]} with CTC heads"
        assert (found.problem or "").startswith(problem or "")
        assert (found.problem is None) == (problem is None)


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch, tmp_path):
    save_tiny(tmp_path, tiny_acoustic_model())
    monkeypatch.setattr(loading, "BUNDLED", tmp_path)
    monkeypatch.setattr(checks, "EXTRAS", {"audio": {"no_such_module": "some files are read"}})
    monkeypatch.setattr(checks, "PROGRAMS", {"no-such-program": ("speech", "no-such-package")})
    result = call("doctor")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok  kikitori: ")
    assert "--  no_such_module: missing; some files are read; pip install 'kikitori[audio]'" in lines
    assert (
        "--  no-such-program: missing; speech; install it, on Debian and Ubuntu: apt install no-such-package" in lines
    )
    assert any(line.startswith("ok  bfloat16: ") for line in lines)
    assert any(line.startswith("ok  int8: ") for line in lines)
    assert lines[-1].startswith(f"ok  {tmp_path.name}: recognises a sample of ")


def test_doctor_fails_where_nothing_works(monkeypatch):
    def broken(**_):
        raise ModelError("is damaged", where="tiny-en")

    monkeypatch.setattr(loading, "load", broken)
    result = call("doctor")
    assert result.exit_code == SOME_FAILED
    assert "tiny-en: does not work: tiny-en: is damaged; install kikitori again" in result.stdout
