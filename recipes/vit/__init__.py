"""Image classifiers, trained from scratch or fine-tuned."""
