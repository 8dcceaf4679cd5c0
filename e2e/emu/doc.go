// Package emu emulates uplinks in user space, for machines without netem.
//
// An [Emulator] serves any number of paths. A path joins two interfaces (veth
// ends in the emulator's namespace) and forwards every Ethernet frame between
// them, so ARP, neighbour discovery, IPv4 and IPv6 all pass. Each direction of
// a path is a [Model]: random loss, then a finite tail-drop queue served at a
// fixed rate or by a Mahimahi trace, then a delay line. Direction [Up] goes
// from the path's A interface to its B interface, [Down] the other way.
//
// # What is counted
//
// Rates, queue bounds and counters are in IP bytes: the frame without its 14
// byte Ethernet header. A 50 Mbit/s link thus carries 50 Mbit/s of IP packets,
// and at an MTU of 1500 at most 48.3 Mbit/s of TCP payload (timestamps on, IPv4).
//
// # Accuracy
//
// The model is exact: it is driven by the kernel's arrival time of each frame,
// not by the moment at which the emulator reads it, and the serialiser's clock
// is virtual. Frames leave in batches, at most one tick (default 200 µs) plus
// the thread's wake-up latency after their due time; [Lateness] tells how late they
// were. [RaisePriority] keeps a busy machine from stretching this.
//
// # Goroutines
//
//   - [Emulator.Run] turns its caller into the pump: it locks the OS thread, owns all
//     models and sockets and returns when its context ends.
//   - [Emulator.ServeControl] accepts control connections until its context ends.
//     It starts one goroutine (control.converse) for each connection; these end when
//     their connection closes, which ServeControl does and waits for before it returns.
//     They reach the models only by messages to the pump.
package emu
