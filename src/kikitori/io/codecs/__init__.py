"""From the bytes of audio files to samples: what `containers` hold, and the `decoders` that read it."""
