"""Commands that make or measure language models, priors and pronunciation lexicons, from texts."""
