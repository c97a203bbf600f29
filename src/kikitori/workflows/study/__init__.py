"""Studies: a recipe and what is varied in it, to a report that compares what came out."""
