"""What goes in: manifests, text corpora, augmentation and batches."""
