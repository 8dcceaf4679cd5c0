package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
)

// Kinds of request.
const (
	download = 'd'
	upload   = 'u'
	echo     = 'e'
)

// request is what a client says first on a connection.
type request struct {
	kind       byte
	text       bool   // send prose, not noise
	congestion string // of the sender's socket; "" leaves the kernel's choice
	bytes      uint64 // to send; 0 is without end
	load       uint64 // that the connection belongs to
}

const (
	requestSize = 32
	nameSize    = 8 // longest congestion control, in bytes
)

func (q request) encode() []byte {
	b := make([]byte, requestSize)
	b[0] = q.kind
	if q.text {
		b[1] = 1
	}
	copy(b[2:2+nameSize], q.congestion)
	binary.BigEndian.PutUint64(b[16:], q.bytes)
	binary.BigEndian.PutUint64(b[24:], q.load)
	return b
}

func readRequest(c io.Reader) (request, error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return request{}, err
	}
	name := b[2 : 2+nameSize]
	for len(name) > 0 && name[len(name)-1] == 0 {
		name = name[:len(name)-1]
	}
	return request{
		kind: b[0], text: b[1] == 1, congestion: string(name),
		bytes: binary.BigEndian.Uint64(b[16:]), load: binary.BigEndian.Uint64(b[24:]),
	}, nil
}

// tunnelPort is steered into the tunnel; pair.DirectPort is not.
const tunnelPort = 80

// service is the origin's server.
type service struct {
	payloads  payloads
	listeners []net.Listener
	wg        sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	counts map[uint64]*atomic.Int64 // bytes received, by load
	closed bool
}

func newService(l *lab.Lab, p payloads, ports ...uint16) (*service, error) {
	s := &service{payloads: p, open: map[net.Conn]struct{}{}, counts: map[uint64]*atomic.Int64{}}
	for _, port := range ports {
		var ln net.Listener
		err := l.Do("origin", func() (err error) {
			ln, err = net.Listen("tcp", ":"+strconv.Itoa(int(port)))
			return err
		})
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.listeners = append(s.listeners, ln)
		s.wg.Add(1)
		go s.accept(ln)
	}
	return s, nil
}

func (s *service) accept(ln net.Listener) {
	defer s.wg.Done()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if !s.admit(c) {
			c.Close()
			return
		}
		go s.serve(c.(*net.TCPConn))
	}
}

func (s *service) admit(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[c] = struct{}{}
	s.wg.Add(1)
	return true
}

// serve answers one connection.
func (s *service) serve(c *net.TCPConn) {
	defer s.wg.Done()
	defer s.forget(c)
	q, err := readRequest(c)
	if err != nil {
		return
	}
	switch q.kind {
	case download:
		if setCongestion(c, q.congestion) == nil {
			_ = send(c, s.payload(q.text), q.bytes)
		}
	case upload:
		drain(c, s.counter(q.load))
	case echo:
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}
}

func (s *service) forget(c net.Conn) {
	c.Close()
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
}

func (s *service) payload(text bool) payload {
	if text {
		return s.payloads.text
	}
	return s.payloads.noise
}

// counter returns where the received bytes of a load are counted.
func (s *service) counter(load uint64) *atomic.Int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts[load]
	if c == nil {
		c = new(atomic.Int64)
		s.counts[load] = c
	}
	return c
}

// close ends all connections and waits for their goroutines.
func (s *service) close() error {
	var errs []error
	for _, ln := range s.listeners {
		errs = append(errs, ln.Close())
	}
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return errors.Join(errs...)
}

// send writes n bytes of p, 0 for without end, until the connection fails.
func send(c net.Conn, p payload, n uint64) error {
	for off := int64(0); n == 0 || uint64(off) < n; {
		b := p.piece(off)
		if n > 0 {
			b = b[:min(uint64(len(b)), n-uint64(off))]
		}
		k, err := c.Write(b)
		off += int64(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// readSize is what one read may take from the kernel.
const readSize = 256 << 10

// drain counts what comes until the end.
func drain(c io.Reader, count *atomic.Int64) {
	b := make([]byte, readSize)
	for {
		n, err := c.Read(b)
		count.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// setCongestion chooses a sender's congestion control.
func setCongestion(c *net.TCPConn, name string) error {
	if name == "" {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return fmt.Errorf("congestion control %s: %w", name, err)
	}
	return nil
}
