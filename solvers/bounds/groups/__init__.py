"""Splits with blocks of inputs instead of single ones, whose masks are enumerated."""
