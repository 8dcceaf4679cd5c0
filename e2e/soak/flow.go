package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// Kinds of flow.
const (
	download    = iota // the server sends
	upload             // the client sends, the server says how much it had
	echo               // both at once; the client ends its half first
	clientAbort        // the client resets a download in the middle
	serverAbort        // the server does
	kinds
)

// order is what a client asks for.
type order struct {
	kind byte
	seed uint64
	size int64
}

const orderSize = 17

func (o order) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{o.kind}, o.seed)
	return binary.BigEndian.AppendUint64(b, uint64(o.size))
}

func readOrder(r io.Reader) (order, error) {
	var b [orderSize]byte
	_, err := io.ReadFull(r, b[:])
	return order{kind: b[0], seed: binary.BigEndian.Uint64(b[1:]), size: int64(binary.BigEndian.Uint64(b[9:]))}, err
}

// stream is an order's bytes: what does not compress, another for each seed.
type stream struct {
	src  *rand.ChaCha8
	left int64
}

func (o order) stream() *stream {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], o.seed)
	return &stream{src: rand.NewChaCha8(seed), left: o.size}
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, _ := s.src.Read(p[:min(int64(len(p)), s.left)]) // never fails
	s.left -= int64(n)
	return n, nil
}

var errOther = errors.New("other bytes than were sent")

// verify reads r to its end and compares it with the order.
func (o order) verify(r io.Reader) (int64, error) {
	want := o.stream()
	got, own := make([]byte, 32<<10), make([]byte, 32<<10)
	for total := int64(0); ; {
		n, err := r.Read(got)
		if _, short := io.ReadFull(want, own[:n]); short != nil || !bytes.Equal(got[:n], own[:n]) {
			return total, fmt.Errorf("%w, after byte %d", errOther, total)
		}
		total += int64(n)
		if err == io.EOF {
			if want.left > 0 {
				return total, fmt.Errorf("%w: it ends %d bytes early", errOther, want.left)
			}
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// server answers orders.
type server struct {
	ln net.Listener
	wg sync.WaitGroup
}

func (s *server) accept() {
	defer s.wg.Done()
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.wg.Add(1)
		go s.serve(c.(*net.TCPConn))
	}
}

func (s *server) close() {
	s.ln.Close()
	s.wg.Wait()
}

// flowLimit bounds one flow's life.
const flowLimit = 3 * time.Minute

func (s *server) serve(c *net.TCPConn) {
	defer s.wg.Done()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(flowLimit))
	o, err := readOrder(c)
	if err != nil {
		return
	}
	switch o.kind {
	case download, clientAbort:
		_, _ = io.Copy(c, o.stream())
	case serverAbort:
		_, _ = io.Copy(c, io.LimitReader(o.stream(), o.size/2))
		_ = c.SetLinger(0)
	case upload:
		n, err := o.verify(c)
		if err != nil {
			n = -1
		}
		_, _ = c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	case echo:
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}
}

// play plays an order on a connection; an error means that the flow was not as
// it has to be.
func (o order) play(c *net.TCPConn) error {
	_ = c.SetDeadline(time.Now().Add(flowLimit))
	if _, err := c.Write(o.encode()); err != nil {
		return err
	}
	switch o.kind {
	case upload:
		return o.playUpload(c)
	case echo:
		return o.playEcho(c)
	case clientAbort:
		_, err := io.CopyN(io.Discard, c, max(o.size/3, 1))
		_ = c.SetLinger(0)
		return err
	case serverAbort:
		_, err := o.verify(c)
		if !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("the server's reset became %w", err)
		}
		return nil
	}
	_, err := o.verify(c)
	return err
}

func (o order) playUpload(c *net.TCPConn) error {
	if _, err := io.Copy(c, o.stream()); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	var b [8]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if n := int64(binary.BigEndian.Uint64(b[:])); n != o.size {
		return fmt.Errorf("%w: the server had %d of %d", errOther, n, o.size)
	}
	return nil
}

func (o order) playEcho(c *net.TCPConn) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, o.stream())
		sent <- errors.Join(err, c.CloseWrite())
	}()
	_, err := o.verify(c)
	return errors.Join(err, <-sent)
}
