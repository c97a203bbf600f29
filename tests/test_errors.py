"""What messages quote of errors of libraries."""

import pytest
from torch import nn

from kikitori.errors import first_line


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("one\ntwo", "one"),
        ("wrong at:\n\tsize of a\n\tsize of b", "wrong at: size of a"),
        ("wrong at:", "wrong at:"),
        ("", "ValueError"),
        ("a" * 400, "a" * 300),
    ],
)
def test_first_line(text, quoted):
    assert first_line(ValueError(text)) == quoted


def test_weights_of_another_shape_are_named():
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(2, 3).load_state_dict(nn.Linear(2, 4).state_dict())
    assert "size mismatch for weight" in first_line(caught.value)
