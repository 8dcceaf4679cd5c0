// Package resume lets a link's fresh TCP connection begin with more than ten packets
// where others over the same path have shown that it holds more (careful resume, RFC 9959).
//
// A BPF program (bpf/resume.c) on the agent's control group (sockops) sets the window
// of connections that are being established, at both ends: the edge's and the
// cloud's. Nothing else can: a socket has no option for it, and a route has one for
// all programs. The table that it looks at has an entry for each path of links, made
// of what pkg/bbr's Recall says of it, which is forgotten after half a minute. The
// program and its table go when the agent ends, however that is.
//
// The object files are committed, so that building needs no C compiler; `make
// bpf` makes them anew.
//
// The package starts no goroutines. All methods may be called from any goroutine.
package resume
