"""The decoder half of encoder-decoder (AED) models: `decoder` runs it, `layout` says how a family puts it together."""

from kikitori.model.decoder.encoder_decoder.decoder import CrossAttentionDecoder, read_frames
from kikitori.model.decoder.encoder_decoder.layout import DecoderLayout

__all__ = ["CrossAttentionDecoder", "DecoderLayout", "read_frames"]
