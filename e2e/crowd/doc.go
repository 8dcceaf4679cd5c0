// Package crowd holds very many TCP connections with little: no goroutine and
// no buffer per connection, one epoll instance for all. It plays the clients
// and the servers of tests and benchmarks that look at what thousands of flows
// cost the agents.
//
// Each client says hello and waits for the echo, so that a connection counts
// only once bytes have crossed it in both directions. Then it rests, or reads
// at a rate of its own from a server that sends as fast as it may.
//
// Echoer and Ping play ping-pong over one connection, each in a thread that waits in the kernel.
//
// The package starts no goroutines: Clients.Open, Clients.Read, Server.Serve, Echoer.Serve
// and Ping run in their callers'. Sockets belong to the network namespace of the thread
// that calls Open and Listen.
package crowd
