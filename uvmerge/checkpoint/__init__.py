"""Bytes, names, layers and matrices of an input, and which tensor is which. No torch at import."""
