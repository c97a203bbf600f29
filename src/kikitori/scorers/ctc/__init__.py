"""The CTC head as a scorer: probabilities of prefixes, and which labels are worth a try in each frame."""
