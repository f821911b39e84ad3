"""A complete DECLOUD network on this machine: ledger, pins and the other parties.

Its actors import nothing from `training`: they are the second opinion on what it does.
"""
