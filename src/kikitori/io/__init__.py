"""What is read and written: audio, files, configurations, model folders and transcripts; nothing unsafe is read."""
