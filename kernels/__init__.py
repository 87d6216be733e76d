"""Hot loops: each file holds a signature, its torch reference and the choice of path."""
