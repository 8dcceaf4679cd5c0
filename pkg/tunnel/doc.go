// Package tunnel is the session of one edge-cloud pair: it carries the sealed
// streams of all flows over however many links live, in order per flow, each
// byte once (PROTOCOL.md section 5).
//
// The loop owns all state: links, flows' send queues, reassembly,
// acknowledgements and credit. Everybody else posts into the mailbox. The loop
// is whoever holds Session.turning: who posts while nobody does takes one turn
// of it in his own goroutine, so that a chunk needs no change of goroutines on
// its way through; what is due by time and what others leave to it is done by
// the goroutine of Session.Run. Goroutines:
//
//   - the loop's own: the caller of Run, ends with its context or when no link
//     lived for the linger time;
//   - per strand of a link connection a reader (of the bulk strand: the caller of
//     Serve) and a writer, started by Serve: all end when the carrier fails or is
//     closed, and Serve returns after they have ended;
//   - joins, per connection that takes urgent connections, and per urgent connection
//     workApart, which reads, and a writer: all end with the connection, before Serve
//     returns.
//
// The loop sends what is little itself if the transport takes it without
// blocking. Otherwise the writer of a link is its room signal: a batch comes back when the
// transport has taken it, and only then may the link take more. So a chunk is
// bound to a link at the last moment and a link that dies holds little.
//
// # Files
//
// The loop:
//   - session: the Session, its API and its loop; mailbox: what others leave; status: what it
//     tells
//   - commands: what workers want; receive: what the peer sends; pump: what the links get
//   - ctrl: control frames that wait for a link
//   - rest: gives memory back; places: how many flows; bounds: other bounds for a peer
//
// A flow:
//   - flow: both streams; sendq: what is to be sent and answered; credit, budget: how much of
//     that
//   - backlog: its place in the order; terms: class, weight, rates, and a link's; lefts: what
//     goes before it
//   - linger: its end by a reset; idset: numbers that were used; crumbs: bytes that come one
//     by one
//
// A link:
//   - link: link and connection of it; conn: the carrier and its pace; strand: its reader and
//     writer
//   - apart: the urgent connection; eye: what the transport knows; sentlog: what waits for an
//     answer
//   - mute: the peer's program hangs; onesided: dead one way; blame: forged records
//
// Out of order:
//   - late: second copies of what is late; aside: by another stream; press: little that must
//     not wait
package tunnel
