"""Training on text alone, with simulated CTC posteriors (`prompts`) and drafts (`drafts`) in place of speech."""
