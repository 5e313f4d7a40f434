"""How the methods find their masks and weights; `cbs.method` has the table of them."""
