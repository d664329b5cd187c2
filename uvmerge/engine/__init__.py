"""Walk a plan: `local.run` does it with threads on this machine.

The plan is the unit of exchange, a tensor the unit of work. `local` moves bytes and never imports
torch; `compute` holds everything that does.
"""
