"""Phone alignments by Gaussian hidden Markov models from a flat start: `graph`, `gaussians`, `mfcc`, `corpus`."""
