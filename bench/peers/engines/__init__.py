"""Other libraries through their Python wheels; see serve.py."""
