"""What a refused model folder has to say."""

import pytest

from kikitori.errors import ModelError
from kikitori.model.folder import load_model


def refused(folder, *expected, load=load_model):
    """The one line with which a folder is refused: it names the folder, the fault and what to do."""
    with pytest.raises(ModelError) as caught:
        load(folder)
    error = caught.value
    assert "\n" not in str(error)
    assert str(folder) in str(error)
    assert error.remedy
    for text in expected:
        assert text in str(error)
