package crowd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Server echoes each client's hello and then sends Flood bytes.
type Server struct {
	Flood  int64 // bytes per connection after the echo; 0: nothing
	Buffer int   // SO_SNDBUF in bytes; 0: the kernel's choice

	poll      *poll
	listeners map[int32]bool
	left      map[int32]int64 // by connection: bytes to send, -1 before the echo
	block     []byte
	stopped   atomic.Bool
}

// Listen opens listeners that other servers may share (SO_REUSEPORT). Close
// gives them back, after Serve has returned.
func (s *Server) Listen(at ...netip.AddrPort) error {
	var err error
	if s.poll, err = newPoll(); err != nil {
		return err
	}
	s.listeners, s.left = map[int32]bool{}, map[int32]int64{}
	s.block = make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(s.block) // noise: it stays as long as it is; never fails
	for _, a := range at {
		fd, err := socket(a.Addr(), option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, option{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
			option{unix.SOL_SOCKET, unix.SO_SNDBUF, s.Buffer})
		if err != nil {
			return err
		}
		s.listeners[int32(fd)] = true
		if err := errors.Join(unix.Bind(fd, sockaddr(a)), unix.Listen(fd, 4096), s.poll.add(fd, unix.EPOLLIN)); err != nil {
			return fmt.Errorf("crowd: listen on %v: %w", a, err)
		}
	}
	return nil
}

// Stop makes Serve return. Any goroutine may call it.
func (s *Server) Stop() { s.stopped.Store(true) }

// Serve works until Stop or an error of the poll's.
func (s *Server) Serve() error {
	for !s.stopped.Load() {
		events, err := s.poll.wait(100 * time.Millisecond)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if s.listeners[ev.Fd] {
				s.accept(int(ev.Fd))
			} else {
				s.serve(int(ev.Fd))
			}
		}
	}
	return nil
}

func (s *Server) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // EAGAIN, or a client that has gone
		}
		s.left[int32(fd)] = -1
		if s.poll.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET) != nil {
			s.drop(fd)
		}
	}
}

// serve goes on with a connection until it would block.
func (s *Server) serve(fd int) {
	left, ok := s.left[int32(fd)]
	if !ok {
		return
	}
	var b [len(hello)]byte
	n, err := unix.Read(fd, b[:])
	if err == nil && n == 0 || err != nil && !errors.Is(err, unix.EAGAIN) {
		s.drop(fd)
		return
	}
	if n > 0 {
		if _, err := unix.Write(fd, b[:n]); err != nil {
			s.drop(fd)
			return
		}
		left = s.Flood
	}
	for left > 0 {
		n, err := unix.Write(fd, s.block[:min(left, int64(len(s.block)))])
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				s.drop(fd)
				return
			}
			break
		}
		left -= int64(n)
	}
	s.left[int32(fd)] = left
}

func (s *Server) drop(fd int) {
	unix.Close(fd)
	delete(s.left, int32(fd))
}

// Close ends everything.
func (s *Server) Close() {
	for fd := range s.left {
		unix.Close(int(fd))
	}
	for fd := range s.listeners {
		unix.Close(int(fd))
	}
	if s.poll != nil {
		s.poll.close()
		s.poll = nil
	}
}
