"""Audio tokenizers, one file a family: neural codecs and speech units will live here."""
