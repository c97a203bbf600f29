"""kikitori: speech recognition with pre-trained speech encoders and large language models."""

__version__ = "0.1.0"
