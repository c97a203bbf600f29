"""What may be read of a model folder that others made: its configuration (`config`) and its weights (`weights`)."""
