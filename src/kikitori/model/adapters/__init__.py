"""Adapters: LoRA on LLM and encoder (`lora`), and their folders apart from the base model.

A folder (`folder`) says which base it is for (`info`) and holds the LoRA of the LLM (`lora_folder`) and changed tensors
of other components (`tensors`).
"""
