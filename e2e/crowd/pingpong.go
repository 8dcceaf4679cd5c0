package crowd

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Echoer sends back what one client after the other sends. It waits in the kernel, in a
// thread of its own, as an ordinary server does: Go's netpoller between a packet and its
// reader would count as the network's.
type Echoer struct{ listener int }

// NewEchoer listens. Close gives the listener back, after Serve has returned.
func NewEchoer(at netip.AddrPort) (*Echoer, error) {
	fd, err := blocking(at.Addr(), option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(unix.Bind(fd, sockaddr(at)), unix.Listen(fd, 16)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("crowd: listen on %v: %w", at, err)
	}
	return &Echoer{fd}, nil
}

// Serve works until Stop.
func (e *Echoer) Serve() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		fd, _, err := unix.Accept4(e.listener, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case errors.Is(err, unix.EINVAL): // Stop
			return nil
		case err != nil:
			return fmt.Errorf("crowd: accept: %w", err)
		}
		echo(fd)
		unix.Close(fd)
	}
}

// Stop makes Serve return once its present client has gone. Any goroutine may call it.
func (e *Echoer) Stop() { _ = unix.Shutdown(e.listener, unix.SHUT_RDWR) }

// Close gives the listener back.
func (e *Echoer) Close() { unix.Close(e.listener) }

// echo serves one client until it ends.
func echo(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	b := make([]byte, 64<<10)
	for {
		n, err := retried(func() (int, error) { return unix.Read(fd, b) })
		if n <= 0 || err != nil {
			return
		}
		if err := all(b[:n], func(p []byte) (int, error) { return unix.Write(fd, p) }); err != nil {
			return
		}
	}
}

// pingLimit is how long one round trip may take.
const pingLimit = 10 * time.Second

// Ping sends n messages of size bytes on one connection to a server that echoes, each once
// the one before has come back, and returns how long each took. It waits in the kernel, as
// Echoer does.
func Ping(to netip.AddrPort, n, size int) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := blocking(to.Addr(), option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(pingLimit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, fmt.Errorf("crowd: receive timeout: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return nil, fmt.Errorf("crowd: connect to %v: %w", to, err)
	}
	out, b := make([]time.Duration, 0, n), make([]byte, size)
	for range n {
		began := time.Now()
		if err := all(b, func(p []byte) (int, error) { return unix.Write(fd, p) }); err != nil {
			return out, fmt.Errorf("crowd: send: %w", err)
		}
		if err := all(b, func(p []byte) (int, error) { return unix.Read(fd, p) }); err != nil {
			return out, fmt.Errorf("crowd: receive: %w", err)
		}
		out = append(out, time.Since(began))
	}
	return out, nil
}

// blocking opens a TCP socket whose calls wait.
func blocking(a netip.Addr, options ...option) (int, error) {
	fd, err := socket(a, options...)
	if err != nil {
		return -1, err
	}
	return fd, unix.SetNonblock(fd, false)
}

// retried repeats a call that a signal has interrupted.
func retried(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// all calls until all of p is done.
func all(p []byte, call func(p []byte) (int, error)) error {
	for len(p) > 0 {
		n, err := retried(func() (int, error) { return call(p) })
		if err != nil {
			return err
		}
		if n <= 0 {
			return errors.New("the peer has ended")
		}
		p = p[n:]
	}
	return nil
}
