"""What most tests of training start from."""

import pytest

from kikitori.train.build.task import build_task
from tests.train.helpers import make_recipe, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Seven short recordings with a manifest; a module may keep its runs beside them."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture
def build(corpus, tmp_path):
    """Builds the task of a recipe's values over `corpus`."""
    return lambda values: build_task(make_recipe(tmp_path, corpus, values), lambda _: None)
