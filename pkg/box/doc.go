// Package box is what both agents are made of, whatever their role: the
// workers with their user-space stacks, the way of a session's events to them,
// the memory budget, and the conversion of figures for status.
//
// Goroutines: Workers.Run owns one per worker, one per stack, one for the card,
// the janitor (Workers.tidy) and the one that sets the number of processors
// (processors.run), and returns after all of them have ended; processors.fired runs
// on short goroutines of the runtime's, and a late one does nothing.
// StopFlows ends the workers, their end the card, Run's context the rest.
package box
