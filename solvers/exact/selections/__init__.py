"""The depth-first search of narrow selections, whose nodes cost microseconds."""
