"""Forms of text by language, and what languages are like."""
