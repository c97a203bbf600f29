"""The decoder half of encoder-decoder (AED) models.

`decoder` runs it, `layout` says how a family puts it together, `rules` what is known of a
transcript before any is written.
"""

from kikitori.model.decoder.encoder_decoder.decoder import CrossAttentionDecoder, read_frames
from kikitori.model.decoder.encoder_decoder.layout import DecoderLayout
from kikitori.model.decoder.encoder_decoder.rules import TranscriptRules

__all__ = ["CrossAttentionDecoder", "DecoderLayout", "TranscriptRules", "read_frames"]
