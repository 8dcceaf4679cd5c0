// Package sealed is the third kind of a flow's sealed side: a TCP connection
// of the kernel's that carries one flow's records (PROTOCOL.md section 7). It
// is to the stand-alone relay what package tunnel is to the agents, and the
// relay worker cannot tell them apart: a Lane is a stream.Tunnel.
//
// An Association is what one authenticated TLS handshake has given a client
// and its gateway: a secret, and the names of services. Any number of
// connections join it without further handshakes; each is one flow. Dialer
// makes associations, Gate grants them. A Port holds one worker's
// connections; the worker's goroutine alone may touch it and its lanes.
//
// Memory: a connection at rest holds no buffer. In motion it holds at most
// one window of records on their way out, one window of records that the
// worker has not consumed, and one record that is arriving; see Budget.
//
// Goroutines: Dialer.Run runs in its caller's. To connect takes one for each of the
// gateway's addresses, which end with it. Gate.handle, one per control
// connection, is started by Gate.admit and ends with that connection;
// Gate.Close ends all and waits.
//
// # Files
//
//   - dialer: the client's association, kept; reach: the gateway's addresses
//   - gate: the gateway's control connections; arrival: what an accepted connection wants to
//     be
//   - handshake: TLS, GRANT; association: keys and joining; account: who has which flows
//   - lane: the worker's view; port: its poller's; conn: one flow's socket; spare: connections
//     kept for the next flow
//   - budget, pace: windows; parts: a port's connections per client; once: each flow joins
//     once
//   - server: addresses of a service
package sealed
