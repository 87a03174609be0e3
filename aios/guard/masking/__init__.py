"""From the monitor's state to tokens: residuals, what they leave open, bit masks. The engine's side knows no trace."""
