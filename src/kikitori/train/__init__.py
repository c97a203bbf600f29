"""Training runs: recipe, optimiser, tasks, trainer and checkpoints."""
