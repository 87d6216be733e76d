"""What all tokenizers share: the interface, Tokens, quantizers, the catalogue, the command line."""
