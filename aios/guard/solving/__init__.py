"""The solver's side of the guard without the solver: what is asked, and the child process that is asked."""
