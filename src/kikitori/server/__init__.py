"""Recognition over HTTP: an OpenAI-compatible API, live transcription and a page; see docs/server.md."""
