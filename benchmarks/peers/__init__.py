"""What `combination.py` and `speech_llm_decoding.py` time: our searches and those of other packages.

- `timing`: contenders that take turns, medians, ratios.
- `posteriors`: made-up CTC outputs that look like those of a trained head.
- `rescoring`: n-best lists through an LLM, merged and not.
- `ctc_peers`: CTC beam searches of other packages, as far as they are installed.
- `fusion`: shallow fusion of a batch, against one utterance at a time.
- `prefix_scoring`: CTC prefix scores for candidates, against ESPnet.
- `beam`: beam search of a speech LLM against transformers, and what CTC takes of joint search.
- `speculative`: verified drafts against writing label by label.
"""
