"""CTC beam search with a language model: over the same labels (`shallow`) or over any, word by word (`delayed`)."""
