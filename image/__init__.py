"""Image tokenizers, one file a family, with their data and quality metrics."""
