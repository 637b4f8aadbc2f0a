"""A recipe in the words of other training frameworks, and back; it writes text and never imports any of them."""
