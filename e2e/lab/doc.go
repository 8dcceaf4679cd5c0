// Package lab builds a small internet of network namespaces on one machine:
//
//	client1 ─┐                up1 ═[emulator]═ dn1
//	client2 ─┼─ lan0  EDGE    up2 ═[emulator]═ dn2    CLOUD  wan0 ── eth0 ORIGIN
//	 (eth0) ─┘                upN ═[emulator]═ dnN
//
// Nodes are named client1..clientN ("client" is client1), edge, cloud, origin; one more,
// emu, holds the emulator. There may be several edges (Spec.Edges): edge2 with its client
// guest2, and so on, each with uplinks of its own. Edge and cloud forward IP, so a client reaches the origin
// directly over one uplink (Direct chooses it): the yardstick for anything better.
//
// # Addresses
//
//	clients    10.10.0.0/24, fd10::/64       edge .1 (::1), client i .10+i (::10+i in hex digits as written)
//	of edge k  10.9+k.0.0/24, fd9+k::/64     edge .1 (::1), guest .11 (::11)
//	uplink i   10.20.i.0/24, fd20:i::/64     edge .1 (::1), cloud .2 (::2)
//	cloud      198.18.100.1, fd30::1         on its loopback, reached through any uplink
//	origin     198.18.200.0/24, fd40::/64    cloud .1 (::1), origin .2 (::2)
//
// Uplink veths carry frames of at most one MTU with complete checksums (offloads off);
// the LAN and the origin's side keep their offloads.
//
// # Names and leftovers
//
// A namespace is named hwlab-NAME-PID-N-NODE, with the process that made the lab and
// a number. Close removes all; CleanStale removes labs whose process is gone. No
// interface, rule or route is ever put into the root namespace.
//
// # Goroutines
//
//   - runInside: one for each Do, ends with the function it runs; Do waits for it.
//   - Proc.reap: one for each started process, ends with the process; Close kills
//     every process and waits for it.
package lab
