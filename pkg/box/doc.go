// Package box is what both agents are made of, whatever their role: the
// workers with their user-space stacks, the way of a session's events to them,
// the memory budget, and the conversion of figures for status.
//
// Goroutines: Workers.Run owns one per worker, one per stack, one for the card,
// the janitor (Workers.tidy) and the one that sets the number of processors
// (processors.run), and returns after all of them have ended; processors.fired runs
// on short goroutines of the runtime's, and a late one does nothing.
// Prober.Run has one, and one per stack while it asks.
// StopFlows ends the workers, their end the card, Run's context the rest.
//
// # Files
//
//   - workers: makes workers, stacks and card; run: runs and ends them, and brings events to
//     them
//   - probe: asks connections at rest whether they still stand
//   - card: the crypto card; flaws_on, flaws_off: its faults in `make soak`
//   - carrier: a link connection as the tunnel uses it; lanes: lanes of one uplink as one link
//     in status
//   - guard: the handshake guard; flood: the shield against SYN floods
//   - tproxy: clients without a hub; shunt, windows: BPF programs, where the kernel has them
//   - egress: the workers' share of the cloud's limits; order: words of the file as policies
//   - fit: memory that the machine really has; shares: what it is for; ceiling: the
//     collector's limit; tidy: the janitor
//   - processors: one processor while that is enough
//   - status, metrics: the document and its web server; findings: those of `check`
package box
