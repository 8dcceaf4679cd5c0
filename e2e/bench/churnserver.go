package main

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
)

// churnServer answers short connections at the origin.
type churnServer struct {
	poll      int
	listeners []int
	ended     chan struct{}

	// serve's own:
	asking map[int]int // bytes of the requests that are not complete
	in     [churnRequest]byte
	reply  [churnReply]byte
}

// newChurnServer listens on the ports and starts answering.
func newChurnServer(l *lab.Lab, ports ...uint16) (*churnServer, error) {
	s := &churnServer{poll: -1, ended: make(chan struct{}), asking: map[int]int{}}
	fillNoise(s.reply[:])
	err := l.Do("origin", func() (err error) {
		if s.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return err
		}
		for _, port := range ports {
			if err := s.listen(port); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("churn server: %w", errors.Join(err, s.release()))
	}
	go s.serve()
	return s, nil
}

// listen opens a listener. The kernel hands a connection over when bytes are
// there (TCP_DEFER_ACCEPT), so that most need no wait.
func (s *churnServer) listen(port uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, fd)
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}),
		unix.Listen(fd, churnBacklog),
		s.watch(fd))
}

func (s *churnServer) watch(fd int) error {
	return unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// serve answers until the listeners are shut down.
func (s *churnServer) serve() {
	defer close(s.ended)
	var events [churnAtOnce]unix.EpollEvent
	for {
		n, err := unix.EpollWait(s.poll, events[:], -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if fd := int(e.Fd); !slices.Contains(s.listeners, fd) {
				s.answer(fd)
			} else if !s.accept(fd) {
				return
			}
		}
	}
}

// accept takes what has come and returns false after the shutdown.
func (s *churnServer) accept(listener int) bool {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch err {
		case nil:
			s.answer(fd)
		case unix.EAGAIN:
			return true
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return false
		}
	}
}

// answer reads a request, and sends the reply when it has all of it.
func (s *churnServer) answer(fd int) {
	had, waits := s.asking[fd]
	n, err := unix.Read(fd, s.in[had:])
	switch got := had + max(n, 0); {
	case err == unix.EAGAIN || n > 0 && got < len(s.in):
		s.asking[fd] = got
		if waits || s.watch(fd) == nil {
			return
		}
	case got == len(s.in):
		_, _ = unix.Write(fd, s.reply[:]) // fits into the socket's buffer
	}
	delete(s.asking, fd)
	unix.Close(fd)
}

// close ends serve and waits for it.
func (s *churnServer) close() error {
	var err error
	for _, fd := range s.listeners {
		err = errors.Join(err, unix.Shutdown(fd, unix.SHUT_RD))
	}
	<-s.ended
	return errors.Join(err, s.release())
}

// release closes every descriptor.
func (s *churnServer) release() (err error) {
	for fd := range s.asking {
		unix.Close(fd)
	}
	for _, fd := range s.listeners {
		err = errors.Join(err, unix.Close(fd))
	}
	return errors.Join(err, unix.Close(s.poll))
}
