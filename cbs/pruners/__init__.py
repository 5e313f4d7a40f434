"""How the methods find their masks and weights; `cbs.methods` is the table of them."""
