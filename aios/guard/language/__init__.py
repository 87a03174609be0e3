"""The language of rules: text to a checked syntax tree, its values and sorts. Knows no trace."""
