// Package link makes, authenticates and runs the connections between an edge
// and its cloud: one static link per uplink, over TCP or QUIC.
//
// A connection carries records and knows nothing of what is in them: a header
// block, which the link seals, and at most one body, whose bytes the sender
// has sealed already and which the link passes on as they are. PROTOCOL.md,
// sections "Handshake" and "Link records", specifies every byte.
//
// # Handshake
//
// TLS 1.3 with both ends' Ed25519 keys: the edge accepts the one key of its
// configuration, the cloud accepts any key that proves itself and lets the
// [Admitter] decide, so that a refusal can be told in words. Inside TLS the
// edge says HELLO, the cloud answers WELCOME. After that a TCP connection
// leaves TLS: TLS records around sealed records would only cost CPU. QUIC
// stays what it is and carries the same records: bulk on one stream, and on another
// what must not wait behind it. Each is a [Strand] with keys and numbers of its own.
// Beside a TCP connection stands a second for that, a [Conn] of its own
// ([Conn.NextUrgent]).
//
// # Goroutines
//
// [Dialer.Dial] with Auto starts attemptOne, one per transport, and returns after
// both have ended. A [Conn] starts none. Send and Receive of a strand block and belong to one
// goroutine each; Close, from any goroutine, ends all.
//
// [Listener.Run] starts the following and returns after all have ended:
//   - acceptTCP and acceptQUIC, one each, until Run's context ends;
//   - handle, one per connection that is being admitted, bounded in number and
//     by the handshake's deadline; it ends when the connection was handed over;
//   - incoming.watch, beside each handle.
//
// The QUIC library runs goroutines of its own per socket and connection. They
// end with Conn.Close at the edge, with Conn.Close and Listener.Close at the
// cloud.
//
// # Files
//
//   - dial: attempts of the edge; race: TCP and QUIC against each other; backoff: pauses
//     between attempts
//   - handshakes: attempts at the same time; outrun: at the cloud, attempts that the edge has
//     left for another
//   - listen: the cloud's sockets; admit: a connection until it is handed over
//   - handshake: TLS and HELLO; handover: from TLS to records; errors: what can go wrong, in
//     words
//   - stranger: what may come before HELLO
//   - names: name servers by a link's own interface
//
// A connection:
//   - conn: Conn and its counters; strand: one run of records; record: their form; seal: keys
//   - beside: the second TCP connection, for what is urgent
//   - tcp: sockets; congestion: their congestion control; segments: paths that drop full
//     packets
//   - resume: what a path carries, for the next connection
//
// QUIC:
//   - quic: the library, behind one file; quicduct: a stream; datagrams, arrivals: its socket
//   - ahead: what edges may send beyond a gap
//   - governor: its congestion control (package bbr); spoilt: batches that get damaged on the
//     way
package link
