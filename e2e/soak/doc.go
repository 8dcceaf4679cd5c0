// Command soak keeps a pair under load for as long as it is told, while uplinks
// vanish, lose packets, change their rate and have their connections reset, and
// clients and servers abort. The agents are built with the tag cardfaults: their
// crypto cards lose jobs, stall and lie. Every flow's bytes are compared with what was sent.
// In the end the agents must hold what they held at the start: memory, file
// descriptors, goroutines.
//
// Goroutines, all ended when run returns: soak.worker, one per flow at a time;
// soak.faults, which breaks uplinks; soak.watch, which reads the agents' figures;
// server.accept and one server.serve per connection, ended by server.close.
package main
