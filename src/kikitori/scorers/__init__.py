"""Scores of label sequences, in search and rescoring: language models, n-grams, CTC prefixes, priors, lengths, sums."""
