// Command bench measures a pair of agents in the lab and prints tables, each
// row beside its peers in the same run. It needs root.
//
//	go run ./e2e/bench                             all tables
//	go run ./e2e/bench -only goodput,objects -runs 3
//	go run ./e2e/bench -only profile               where the CPU time goes
//	go run ./e2e/bench paths -only loss,deep       how uplinks are used, beside peers
//
// The raw readings go to bench-results/NAME.json. docs/bench.md says what each
// table shows. The exit code is 1 when a gate is missed, 2 when something else
// fails.
//
// # Goroutines
//
//   - service.accept, one per port of the origin, and service.serve, one per
//     connection: end when the service is closed, which waits for them.
//   - churnServer.serve: ends when the server is closed, which waits for it.
//   - load.receive and load.send, one per flow: end when the load is stopped,
//     which waits for them.
//   - bulkFlow.run, one per flow of a reading of `paths`: ends when the flow is
//     closed, which waits for it. readBulk waits for the three at its side.
//   - prober.run, one per reading of faults, and one per connection that it makes:
//     end with the reading, which waits for them.
package main
