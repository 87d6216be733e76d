"""Text tokenizers, one file a family."""
