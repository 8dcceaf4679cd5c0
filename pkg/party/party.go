// Package party says what a relay worker needs from a plain party of a flow:
// the client's connection at the edge, the server's at the cloud. A user-space
// TCP endpoint and a kernel socket both satisfy Conn, and a further kind is one
// more file that does.
//
// The package starts no goroutines.
package party

import (
	"errors"
	"net/netip"
)

// Ready is a set of readiness bits.
type Ready uint8

// Readiness bits. They are edge-triggered: after a bit was reported it is not
// reported again until the operation has returned ErrAgain.
const (
	Readable Ready = 1 << iota // Read may succeed, or return io.EOF or an error
	Writable                   // Write may succeed; while connecting: Connected knows the outcome
	Hangup                     // the connection is broken; Read and Write return why
)

// Errors that a Conn returns; match with errors.Is.
var (
	ErrAgain       = errors.New("would block")
	ErrReset       = errors.New("connection reset by the party")
	ErrRefused     = errors.New("connection refused by the party")
	ErrUnreachable = errors.New("party unreachable or silent")
)

// Conn is one non-blocking TCP connection to a plain party. It belongs to one
// worker, which alone calls its methods.
type Conn interface {
	// Watch registers the function that is told of readiness. It is called
	// once, before any other method, and fn may run at once and on any
	// goroutine; fn must only note the bits and wake the worker.
	Watch(fn func(Ready))
	// Connected returns nil once the connection stands, ErrAgain while it is
	// being made, and the reason when it failed. Accepted connections return nil.
	Connected() error
	// Read copies received bytes to p. It returns ErrAgain when there are none,
	// io.EOF after the party's FIN, another error when the connection is broken.
	Read(p []byte) (int, error)
	// Writev takes the bytes of all of bufs, in order, and leaves bufs as it is.
	// What comes in one call may leave in one frame. Fewer bytes than there are
	// come with ErrAgain or the reason.
	Writev(bufs [][]byte) (int, error)
	// CloseWrite sends a FIN after what was written.
	CloseWrite() error
	// Abort sends a RST and gives everything back. Safe after Close.
	Abort()
	// Close gives everything back after both directions have ended; what was
	// written is still delivered.
	Close()
	// Remote is the party's address.
	Remote() netip.AddrPort
}

// Opener is a client's Conn whose first data may wait for the server: nothing,
// or little, can be read before Open.
type Opener interface {
	Conn
	// Open says that the server is connected, and takes window bytes at first;
	// negative means that this is not known. More than once is harmless.
	Open(window int)
	// Refuse says, before Abort, that the server has refused the connection, or
	// silent: has not answered.
	Refuse(silent bool)
}

// Offerer is a dialled Conn that knows how much its server takes.
type Offerer interface {
	Conn
	// Offered is the window that the server has announced, in bytes. It means
	// something once Connected has returned nil.
	Offered() int
}

// Roomer is a Conn that knows how much Writev would take.
type Roomer interface {
	Conn
	// Room is how many bytes Writev takes now, about; 0 also where that is not known.
	Room() int
}

// Holder is a Conn that knows at little cost what Read would find.
type Holder interface {
	Conn
	// Waiting is how many received bytes Read can have now, at least.
	Waiting() int
}
