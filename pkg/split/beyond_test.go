package split

import (
	"io"
	"testing"
	"time"

	"hawser/pkg/party"
	"hawser/pkg/proof"
)

// TestGrowthBeyondBuffer: a receive buffer grows beyond Options.Buffer while what all
// have grown by is below MaxGrowth, and not when it is that: with as much read as had
// made it grow.
func TestGrowthBeyondBuffer(t *testing.T) {
	const buffer, most, enough = 64 << 10, 1 << 20, 256 << 20
	l := newLab(t, true)
	o := l.options(0, 1)
	o.Buffer, o.MaxBuffer, o.MaxGrowth = buffer, most, most
	conns := make(chan *Conn, 1)
	s, _ := l.start(o, func(c *Conn) { conns <- c })
	// grows reads until the buffer has grown, and all that limit allows at most; it
	// returns how much was read.
	grows := func(limit int, others func()) (read int, grown bool) {
		client := l.dial(anywhere(false, 4711))
		defer client.Close()
		_ = client.SetWriteDeadline(time.Now().Add(time.Minute))
		go func() { _, _ = io.Copy(client, zeros{}) }()
		c := <-conns
		defer c.Abort()
		p := make([]byte, 64<<10)
		for read < limit && !grown {
			n, err := c.Read(p)
			if err != nil && err != party.ErrAgain {
				t.Fatal(err)
			}
			if others(); n == 0 {
				time.Sleep(100 * time.Microsecond)
			}
			read += n
			grown = c.ep.SocketOptions().GetReceiveBufferSize() > buffer
		}
		return read, grown
	}
	read, grown := grows(enough, func() {})
	if !grown {
		t.Fatalf("the buffer has not grown after %d bytes", read)
	}
	waitFor(t, "what it had", func() bool { return s.growth.taken.Load() == 0 })
	s.growth.taken.Store(most)
	var busy proof.Proof // by others, all the time
	others := func() { busy.Pass(proof.After, s.now(), most/2, &s.growth.sure) }
	if read, grown := grows(4*read+4<<20, others); grown {
		t.Errorf("the buffer has grown after %d bytes although others have all", read)
	}
	s.growth.taken.Add(-most)
}

// zeros is a source without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
