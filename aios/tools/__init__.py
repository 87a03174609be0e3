"""Tools: plain typed functions that a model may call, and the box that validates, runs and limits them.

Knows no process, no rule, no journal: whoever calls `Toolbox.run` has decided that the call may happen.
"""
