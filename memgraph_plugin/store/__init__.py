"""Where memories live: one contract, three stores."""
