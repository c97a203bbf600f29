"""Search: from scores of models to label sequences.

- `options` · `defaults`: a search by name or YAML with its options; the one that a model folder brings.
- `run`: which search when, from a batch of encoded speech to n-best lists; `resources`: the models that take part.
- `ctc`: over the frames of the CTC head; `fusion`: the same with a language model; `lexicon`: over known words.
- `autoregressive`: label by label with the decoder: greedy, sampling, beam, joint with CTC, speculative.
- `rescore`: n-best lists in another order.
- `length` · `guards` · `confidence`: longest transcript, what is flagged or left empty, how sure a search is.

Searches take tensors with lengths and return labels with scores; turning labels into text is the units' work.
"""
