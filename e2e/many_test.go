package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestManyConnections opens 200 connections at once; each asks for a stream of
// its own size and checks it.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	r := start(t, twins(), pair.Options{})
	r.serve(80, sendNoise)
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range 200 {
		wg.Go(func() { errs <- ask(r, uint32(1000+i*1500), time.Minute) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	r.quiet()
}

// sendNoise sends as much noise as the client asks for.
func sendNoise(c *net.TCPConn) {
	defer c.Close()
	var ask [4]byte
	if _, err := io.ReadFull(c, ask[:]); err == nil {
		n := binary.BigEndian.Uint32(ask[:])
		_, _ = io.Copy(c, newNoise(byte(n), int64(n)))
	}
}

// ask requests n bytes of noise from port 80 and checks them.
func ask(r *rig, n uint32, limit time.Duration) error {
	c, err := r.dial(r.origin(lab.IPv4, 80), limit)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
		return err
	}
	if g := receive(c, nil); g.err != nil || g.sum != sumOf(byte(n), int64(n)) {
		return fmt.Errorf("asked for %d bytes: got %v, %v", n, g, g.err)
	}
	return nil
}
