"""Adapters: LoRA on LLM and encoder (`lora`), and their folders apart from the base model (`folder`)."""
