"""From a recipe to a training task: `task`, with its `networks` and `corpora`."""
