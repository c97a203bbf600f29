"""Decoding: from scores of models to labels.

Two families, as in the papers: time-synchronous searches step over frames, label-synchronous searches over labels.

- `decode`: which search when, from what the encoder heard to n-best lists.
- `ctc_greedy`: acoustic model alone, the best output of every frame.
- `ctc_beam`: acoustic model alone, the best label sequences; its loop over frames can be driven from outside.
- `shallow_fusion`: acoustic model and language model over the same labels, whose scores meet in the beam.
- `delayed_fusion`: acoustic model and language model over any labels, which judges words once they are complete.
- `lexicon_search`: acoustic model over phones and a word n-gram, the words of a pronunciation lexicon.
- `lexicon_trie` · `lexicon_beam` · `word_ngram`: pronunciations, the compiled inside of it, the n-gram.
- `word_reader` · `growing_scores`: labels as that LM's tokens; texts that grow, of which it reads each token once.
- `beam` · `joint`: speech LLM, the best label sequences, alone or with the CTC head as a judge.
- `ctc_prefix` · `prefix_scores`: that judge, and its compiled inside.
- `scorers`: what else judges labels in a search, of whatever kind it is: language models, priors, lengths, sums.
- `internal_lm` · `ngram`: further scorers: the speech LLM without speech, KenLM.
- `word_ngram`: n-grams over words, as arrays to walk.
- `prior` · `partners`: estimated label priors; where a recogniser's language model and prior come from.
- `prefix_beam` · `candidates` · `native`: the compiled inside of it: the beam, what a frame offers, the compiler.
- `greedy`: speech LLM, the best label at every step, for a batch at once.
- `speculative` · `draft`: what `greedy` writes, in a few passes over drafts of it.
- `sampling`: speech LLM, a drawn label at every step, the same whatever the batch.
- `label_loop`: what these two share: prefill, one step per label, rows that leave when they end.
- `rescoring`: n-best lists in another order, by language models, the speech LLM and length.
- `language_model` · `tree_scores` · `trie`: whole texts judged by an LLM, merged where they begin alike.
- `guards`: what a search found held against the CTC head and the sound; silence has no text.
- `confidence`: how sure a search is of what it found.
- `scales`: searches with scales, as `kikitori tune` sees them.
- `limits`: how long a transcript may get, which ends runaway decoding.
- `options` · `own_search`: a search by name or YAML, with options of its own; those of a model folder.

Searches take tensors with lengths and return labels with scores; turning labels into text is the units' work.
"""
