"""Branch and bound whose nodes have splits in groups: few and strong ones, for wide rows."""
