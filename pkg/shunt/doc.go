// Package shunt translates the everyday segments of spliced connections in the
// kernel.
//
// A BPF program (bpf/shunt.c) where the host sends frames to the hub (tcx on the
// way out of hub0, Linux 6.6) does with them what a splice.Table does, byte for
// byte, and turns them round: they come into the host by hub0 again, as they would
// from the stack, without having been copied or having woken anybody. Routes,
// rules and connection tracking see no difference. SYNs, FINs, resets, fragments,
// absurd options and whatever else is not everyday go on to the stack and its
// table, which makes and ends connections and tells the program of those that are
// open.
//
// The agent has the program's maps in its memory, so that a connection is handed
// over, looked at and taken back without system calls. A connection takes 112 bytes
// in them: its path, and its share of the buckets that lead there. What does not
// find room in its bucket stays with the table.
//
// Checksums are passed on, right or wrong, as a router does it.
//
// The object files are committed, so that building needs no C compiler; `make
// bpf` makes them anew.
//
// The package starts no goroutines. The program is detached when Close is called
// and when the process ends, however it does.
package shunt
