"""Engines walk a plan; `local.run` walks it with threads on this machine.

An engine is handed whole plans, and works on one tensor at a time. `local`, `crew`, `progress` and
`settings` never import torch; the other modules compute with it.
"""
