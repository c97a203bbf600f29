"""Searches from options without sections."""

from kikitori.io.config import validate
from kikitori.search.old_options import new_form


def flat(search, **options):
    """A search from options such as `beam=3, score_beam=None, llm_scale=0.5`."""
    name = search().search
    return validate(search, new_form({"search": name, **options}, name, "test"), "test")
