"""Nothing that is saved names a place of the machine that made it."""

import pytest

from kikitori.model.adapters.folder import merge_adapter
from kikitori.train.build.task import build_task
from tests.adapters import make_adapter
from tests.tiny import save_tiny_llm, tiny_bpe
from tests.train.helpers import (
    acoustic_recipe,
    make_recipe,
    masked_recipe,
    speech_llm_recipe,
    text_recipe,
    write_corpus,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One folder of each kind, and folders that start from them."""
    root = tmp_path_factory.mktemp("this_machine")
    write_corpus(root / "corpus")

    def export(name, values):
        folder = root / "models" / name
        folder.mkdir(parents=True)
        build_task(make_recipe(root, root / "corpus", values), lambda _: None).export(folder)
        return str(folder)

    acoustic = export("acoustic", acoustic_recipe())
    units = {"kind": "run", "path": acoustic}
    lora = {"policy": "lora", "lora": {"rank": 2}}
    export("acoustic_again", acoustic_recipe(units=units, encoder={"init": acoustic, **lora}))
    export("encoder", masked_recipe(encoder={"init": acoustic}))
    lm = export("lm", text_recipe(units=units))
    export("lm_again", text_recipe(units=units, llm={"init": lm, **lora}))
    starts = {"units": units, "encoder": {"init": acoustic}}
    speech = export("speech", speech_llm_recipe(**starts, llm={"init": lm, **lora}))
    export("speech_again", speech_llm_recipe(units=units, encoder={"init": speech}, llm={"init": speech}))
    save_tiny_llm(root / "llm", units=tiny_bpe())
    own = {"kind": "llm", "text_form": "en_plain"}
    export("own_units", speech_llm_recipe(units=own, encoder={"init": acoustic}, llm={"init": str(root / "llm")}))
    adapt = {"task": "adaptation", "adapt": {"model": speech}, "denoising": {"share": 0.5}, "llm": None}
    export("adapter", text_recipe(units={"kind": "run", "path": speech}, **adapt))
    models = root / "models"
    make_adapter(models / "speech", models / "changes", ("llm", "bridge"))
    merge_adapter(speech, models / "changes", models / "merged")
    return models


FOLDERS = ("acoustic", "acoustic_again", "encoder", "lm", "lm_again", "speech", "speech_again", "own_units")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("name", [*FOLDERS, "adapter", "changes", "merged"])
def test_no_file_names_where_it_was_made(saved, name):
    files = [file for file in (saved / name).rglob("*") if file.is_file()]
    assert files
    assert [file.name for file in files if b"this_machine" in file.read_bytes()] == []
