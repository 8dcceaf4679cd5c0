// Package splice carries TCP connections past the tunnel, packet by packet: the
// handshakes of both ends are made one in the other, or, where many wait, that with the
// client is completed first, with a window of zero, and then one of our own is made with
// the server; from then on only the numbers in the headers are translated. Nothing is buffered, acknowledged or sent again here:
// the two ends do that with each other. The idea is that of SYN proxies and
// layer 4 balancers (delayed binding).
//
// # A flow's life
//
// greeting: a SYN was answered with a SYN-ACK of window 0, which is sent again
// after 1, 2 and 4 s. The client's ACK leads to calling. A handshake that a guard has completed begins there (Open).
//
// calling: our SYN is on its way to the server, sent again after 1, 2 and 4 s.
// What the client sends is dropped, and answered with a window of 0 where it
// asks; so it cannot push data for a server that is not there. The server's
// SYN-ACK leads to open: we acknowledge it, and a window update lets the client
// go. A reset, an ICMP error or 15 s without an answer reset the client.
//
// asking: in place of both, a SYN was passed on to the server, as in calling, and the client
// hears nothing (Ask): it is to measure the way to the server, as its congestion control
// goes by the least round trip. The server's SYN-ACK leads to offered. A reset or an ICMP error
// reset the client; after 15 s the flow is forgotten, and the client's next SYN begins anew.
//
// offered: the server's SYN-ACK was passed on, and is again when the server repeats it and
// after 1, 2 and 4 s. The client's ACK, passed on, leads to open.
//
// open: segments are translated. Both ends' FINs and their acknowledgements are
// watched: when both are acknowledged the flow is ended. A reset passes and
// ends the flow soon, unless it proves to be a forged one: other segments that
// follow keep the flow. FINs and resets with numbers that the other end does not
// take pass, for it to judge, and count for nothing.
//
// ended: late segments are still translated for a minute, or until a new flow has no
// other place or port, and a SYN on the same addresses and ports begins anew.
//
// # Translation
//
// Towards the client stands the number that we chose for the server's first
// byte (after asking the server's own), towards the server (usually) the client's own: sequence numbers,
// acknowledgements, SACK blocks (RFC 2018) and the server's timestamps (RFC
// 7323) are shifted by constants, modulo 2^32. Windows are the receiver's own;
// where both sides' scales differ they are converted, rounded down.
//
// What the client was promised before the server was known, and the server
// cannot do, is made up for: without the server's SACK or timestamps the
// client's options are blanked out and timestamps are put into what the server
// sends; without its window scale windows are cut to 64 KB; with a smaller MSS
// segments are left to the kernel to cut (GSO).
//
// Towards the server a flow has the hub's address and a port of ours, so the
// host can tell both legs of one connection apart, in connection tracking, too.
//
// # Shunt
//
// Open flows are offered to a Shunt (the kernel), which translates their everyday
// segments. The table keeps the flow: it is asked for what the Shunt does not take,
// learns from it what has passed (Trace) before it answers, resets or forgets a
// flow, tells it of what the table has passed itself (Tell), and takes the flow back
// at a reset and at the second FIN.
//
// # Checksums
//
// A checksum is corrected by the difference of the old and the new header (RFC
// 1624 equation 3), or, where the kernel or a card is to fill it in (offload),
// holds the sum of the pseudo header.
//
// The package is pure: now is the time since a moment of the caller's choice.
// A Table belongs to one goroutine at a time.
//
// # Files
//
//   - machine, table: the flows; flow: one of them; ask: SYNs passed on; door: how many per
//     client
//   - control: segments of our own; translate: numbers; header, ip: their places; icmp: errors
//   - shunt: what the kernel does
package splice
