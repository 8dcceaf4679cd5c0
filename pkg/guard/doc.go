// Package guard holds the decisions of the handshake guard, which answers
// clients' SYNs in front of the user-space TCP stack: cookies, what a segment
// means for a flow whose server is still being asked, the translation of
// numbers between client and stack, and who may have a flow at all.
//
// A SYN costs no memory: the SYN-ACK's sequence number is a cookie (Jar) that
// a valid ACK brings back. Only that ACK makes a Flow. The stack is given the
// connection when the server is there (zero-window), or at once (fast), by a
// SYN that the guard invents; from then on sequence numbers and timestamps
// differ between client and stack by constants, which Flow adds and subtracts.
// Gate bounds flows and chooses between the two when the mode is auto.
//
// Sources: SYN cookies by D. J. Bernstein (cr.yp.to/syncookies.html) and
// RFC 4987 section 3.6; options in the timestamp as Linux has them
// (net/ipv4/syncookies.c); MAC by SipHash-2-4 (Aumasson, Bernstein 2012).
//
// The package does no I/O, reads no clock and starts no goroutines. Its types
// are not safe for concurrent use unless they say so.
//
// # Files
//
//   - cookie: the Jar of SYN cookies; hello: a SYN's options; frame: segments of our own;
//     alarm: is it a flood
//   - flow: a client's flow until its server has answered; translate: its numbers
//   - gate: modes and bounds; server: whom to ask; pace: how many at a time; recent: SYN-ACKs
//     that may be sent again; six: IPv6
package guard
