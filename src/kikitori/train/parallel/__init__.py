"""Training by several processes: who they are, how they share a step, and how they write what each holds a piece of."""
