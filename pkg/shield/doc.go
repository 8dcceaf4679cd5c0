// Package shield answers clients' SYNs in the kernel while somebody floods the
// edge with them.
//
// A BPF program (bpf/shield.c) on the way into the client interfaces (tcx, Linux
// 6.6) makes SYN-ACKs with the cookies of pkg/guard and sends them back where
// the SYNs came from. So a SYN of a flood costs neither a conntrack entry nor a
// way through routing, rules and the hub. ACKs that bring a cookie are marked:
// connection tracking has not seen their SYN, and their mark says that the
// connection is steered (netns). Everything else goes its way, as do SYNs of
// connections that the host knows and of destinations that the plan does not
// steer. Window 0 is all that these SYN-ACKs offer; the guard opens it when the
// ACK is there, by the mode of the connection.
//
// The object files are committed, so that building needs no C compiler; `make
// bpf` makes them anew.
//
// The package starts no goroutines. A Shield's methods may be called from any
// goroutine, one at a time.
package shield
