"""The project's own branch and bound."""
