package split

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/party"
)

// random returns n bytes that do not repeat.
func random(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

// roundTrip sends data through an echo and checks what comes back.
func roundTrip(c *net.TCPConn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	h := sha256.New()
	n, err := io.Copy(h, c)
	if e := <-sent; e != nil {
		return fmt.Errorf("send: %w", e)
	}
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if want := sha256.Sum256(data); n != int64(len(data)) || !bytes.Equal(h.Sum(nil), want[:]) {
		return fmt.Errorf("got %d bytes of %d, or their checksum differs", n, len(data))
	}
	return nil
}

func TestEcho(t *testing.T) {
	const size = 50 << 20
	for _, tc := range []struct {
		name     string
		v6, gso  bool
		perFrame uint64 // least mean frame size that proves offloading
	}{
		{"ipv4", false, true, 8 << 10},
		{"ipv6", true, true, 8 << 10},
		{"ipv4 without client offloads", false, false, 0},
		{"ipv6 without client offloads", true, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t, true)
			if !tc.gso {
				l.offloads(l.client, "lan-c", false)
				l.offloads(l.host, "lan0", false)
			}
			p := newPump(t)
			want := anywhere(tc.v6, 4711)
			s, _ := l.start(l.options(0, 1), func(c *Conn) {
				if c.Local().String() != want || c.Connected() != nil {
					t.Errorf("local address %v, connected %v; want %s, nil", c.Local(), c.Connected(), want)
				}
				p.echo(c, nil)
			})
			c := l.dial(want)
			err := roundTrip(c, random(size))
			st := s.Stats()
			t.Logf("%+v", st)
			must(t, err)
			if st.BytesIn < size || st.BytesOut < size || st.Accepted != 1 {
				t.Error("the bytes did not pass the stack")
			}
			if st.BytesIn < tc.perFrame*st.FramesIn {
				t.Errorf("received frames are %d bytes in the mean, want at least %d: no GSO", st.BytesIn/st.FramesIn, tc.perFrame)
			}
			if tc.gso && st.GSOOut == 0 {
				t.Error("no frame was sent with GSO")
			}
			if st.BadChecksums+st.Malformed+st.Truncated+st.SendErrors+st.Fragments != 0 {
				t.Error("frames were dropped")
			}
		})
	}
}

// accepted starts a stack and returns one connection's both ends.
func accepted(t *testing.T, l *lab, o Options) (*Stack, *net.TCPConn, *watcher) {
	t.Helper()
	got := make(chan *Conn, 1)
	s, _ := l.start(o, func(c *Conn) { got <- c })
	client := l.dial(anywhere(false, 80))
	return s, client, watch(t, <-got)
}

// TestSmallWriteLeavesAtOnce: what a write makes netstack send has left when the
// write returns, without another goroutine's help; much is left to the outbox's own.
func TestSmallWriteLeavesAtOnce(t *testing.T) {
	l := newLab(t, true)
	s, client, w := accepted(t, l, l.options(0, 1))
	var b [64]byte
	left := 0
	for try := 0; try < 25 && left < 15; try++ { // on a busy machine the outbox may often be sending something else just then
		left = 0
		for range 20 {
			before := s.count.framesOut.Load()
			must(t, w.write(b[:]))
			if s.count.framesOut.Load() > before {
				left++
			}
			_, err := io.ReadFull(client, b[:])
			must(t, err)
		}
	}
	if left < 15 {
		t.Errorf("%d of 20 small frames have left when the write returns", left)
	}
	large := random(1 << 20)
	wrote := make(chan error, 1)
	go func() { wrote <- w.write(large) }()
	p := make([]byte, len(large))
	_, err := io.ReadFull(client, p)
	must(t, err)
	must(t, <-wrote)
	if !bytes.Equal(p, large) {
		t.Error("the bytes came in another order")
	}
}

func TestHalfCloseByClient(t *testing.T) {
	l := newLab(t, true)
	_, client, w := accepted(t, l, l.options(0, 1))
	_, err := client.Write([]byte("question"))
	must(t, err)
	must(t, client.CloseWrite())
	if p, err := w.read(100); string(p) != "question" || err != io.EOF {
		t.Fatalf("read %q, %v; want question, EOF", p, err)
	}
	answer := random(3 << 20)
	wrote := make(chan error, 1)
	go func() {
		err := w.write(answer)
		if err == nil {
			err = w.conn.CloseWrite()
		}
		w.conn.Close()
		wrote <- err
	}()
	p, err := io.ReadAll(client)
	must(t, err)
	must(t, <-wrote)
	if !bytes.Equal(p, answer) {
		t.Fatalf("answer of %d bytes arrived as %d", len(answer), len(p))
	}
}

func TestHalfCloseByParty(t *testing.T) {
	l := newLab(t, true)
	s, client, w := accepted(t, l, l.options(0, 1))
	must(t, w.write([]byte("greeting")))
	must(t, w.conn.CloseWrite())
	p, err := io.ReadAll(client)
	must(t, err)
	if string(p) != "greeting" {
		t.Fatalf("client got %q", p)
	}
	data := random(1 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := client.Write(data)
		sent <- errors.Join(err, client.CloseWrite())
	}()
	if p, err := w.read(len(data) + 1); !bytes.Equal(p, data) || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want %d, EOF", len(p), err, len(data))
	}
	must(t, <-sent)
	if got := party.Ready(w.bits.Load()); got&party.Hangup != 0 {
		t.Error("hangup reported for a connection that both sides closed well")
	}
	w.conn.Close()
	w.conn.Abort() // safe after Close
	waitFor(t, "the connection to leave TIME_WAIT", func() bool { return s.Stats().Open == 0 })
}

// waitFor polls until ok.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(ample); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestResetByClient(t *testing.T) {
	for _, tc := range []struct {
		name string
		prep func(t *testing.T, client *net.TCPConn, w *watcher)
	}{
		{"established", func(*testing.T, *net.TCPConn, *watcher) {}},
		{"after our fin", func(t *testing.T, client *net.TCPConn, w *watcher) {
			must(t, w.conn.CloseWrite())
			_, err := io.ReadAll(client)
			must(t, err)
		}},
		{"after the client's fin", func(t *testing.T, client *net.TCPConn, w *watcher) {
			must(t, client.CloseWrite())
			if _, err := w.read(1); err != io.EOF {
				t.Fatalf("read: %v, want EOF", err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t, true)
			s, client, w := accepted(t, l, l.options(0, 1))
			tc.prep(t, client, w)
			if tc.name == "after the client's fin" {
				// The kernel resets in CLOSE_WAIT's mirror only when data
				// comes for a closed socket.
				must(t, client.Close())
				must(t, w.write([]byte("x")))
			} else {
				must(t, client.SetLinger(0))
				must(t, client.Close())
			}
			w.wait(party.Hangup)
			for range 2 { // the reason stays
				if _, err := w.conn.Read(make([]byte, 1)); !errors.Is(err, party.ErrReset) {
					t.Errorf("read: %v, want ErrReset", err)
				}
				if _, err := w.conn.Write([]byte("y")); !errors.Is(err, party.ErrReset) {
					t.Errorf("write: %v, want ErrReset", err)
				}
			}
			w.conn.Abort()
			w.conn.Abort()
			if st := s.Stats(); st.Open != 0 || st.ResetsIn == 0 {
				t.Errorf("open %d, resets received %d; want 0, more", st.Open, st.ResetsIn)
			}
		})
	}
}

func TestDataBeforeResetIsRead(t *testing.T) {
	l := newLab(t, true)
	_, client, w := accepted(t, l, l.options(0, 1))
	_, err := client.Write([]byte("last words"))
	must(t, err)
	must(t, client.SetLinger(0))
	must(t, client.Close())
	w.wait(party.Hangup)
	if p, err := w.read(100); string(p) != "last words" || !errors.Is(err, party.ErrReset) {
		t.Errorf("read %q, %v; want last words, ErrReset", p, err)
	}
}

func TestAbortSendsReset(t *testing.T) {
	for _, tc := range []struct {
		name string
		prep func(t *testing.T, client *net.TCPConn, w *watcher)
	}{
		{"established", func(*testing.T, *net.TCPConn, *watcher) {}},
		{"unread data", func(t *testing.T, client *net.TCPConn, w *watcher) {
			_, err := client.Write(random(10000))
			must(t, err)
			w.wait(party.Readable)
		}},
		{"after the client's fin", func(t *testing.T, client *net.TCPConn, w *watcher) {
			must(t, client.CloseWrite())
			if _, err := w.read(1); err != io.EOF {
				t.Fatalf("read: %v, want EOF", err)
			}
		}},
		{"unsent data, client not reading", func(t *testing.T, client *net.TCPConn, w *watcher) {
			for {
				if _, err := w.conn.Write(random(64 << 10)); errors.Is(err, party.ErrAgain) {
					time.Sleep(50 * time.Millisecond)
					if _, err := w.conn.Write([]byte("x")); errors.Is(err, party.ErrAgain) {
						return
					}
				} else {
					must(t, err)
				}
			}
		}},
		{"closed with unsent data", func(t *testing.T, client *net.TCPConn, w *watcher) {
			for {
				if _, err := w.conn.Write(random(64 << 10)); errors.Is(err, party.ErrAgain) {
					break
				}
			}
			w.conn.Close()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t, true)
			s, client, w := accepted(t, l, l.options(0, 1))
			tc.prep(t, client, w)
			w.conn.Abort()
			if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("client reads: %v, want connection reset", err)
			}
			waitFor(t, "the endpoint to go", func() bool { return s.Stats().Open == 0 })
		})
	}
}

func TestAcceptMayRefuse(t *testing.T) {
	l := newLab(t, true)
	l.start(l.options(0, 1), func(c *Conn) { c.Abort() })
	c, err := l.dialErr(anywhere(false, 80))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client: %v, want connection reset", err)
	}
}

func TestWithoutAcceptClientsAreRefused(t *testing.T) {
	l := newLab(t, true)
	l.start(l.options(0, 1), nil)
	if _, err := l.dialErr(anywhere(false, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("client: %v, want connection refused", err)
	}
}

func TestManyConnections(t *testing.T) {
	l := newLab(t, true)
	p := newPump(t)
	s, _ := l.start(l.options(0, 1), func(c *Conn) { p.echo(c, nil) })
	data := random(100 << 10)
	var wg sync.WaitGroup
	errs := make(chan error, 500)
	for i := range 500 {
		wg.Go(func() {
			c, err := l.dialErr(anywhere(i%2 == 0, 1+i))
			if err == nil {
				err = roundTrip(c, data)
			}
			if err != nil {
				errs <- fmt.Errorf("connection %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if st := s.Stats(); st.Accepted != 500 || st.HandshakeDrops != 0 {
		t.Errorf("accepted %d, dropped %d handshakes; want 500, 0", st.Accepted, st.HandshakeDrops)
	}
	waitFor(t, "all connections to go", func() bool { return s.Stats().Open == 0 })
}

func TestStopResetsClients(t *testing.T) {
	l := newLab(t, true)
	got := make(chan *Conn, 20)
	_, stop := l.start(l.options(0, 1), func(c *Conn) { got <- c })
	var clients []*net.TCPConn
	var watchers []*watcher
	for range 20 {
		clients = append(clients, l.dial(anywhere(false, 80)))
		watchers = append(watchers, watch(t, <-got))
	}
	stop()
	for i, c := range clients {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client %d reads: %v, want connection reset", i, err)
		}
		watchers[i].wait(party.Hangup)
		watchers[i].conn.Abort()
		watchers[i].conn.Close()
	}
}

func TestSurvivesLoss(t *testing.T) {
	l := newLab(t, true)
	l.lose(1)
	p := newPump(t)
	s, _ := l.start(l.options(0, 1), func(c *Conn) { p.echo(c, nil) })
	for _, v6 := range []bool{false, true} {
		if err := roundTrip(l.dial(anywhere(v6, 80)), random(12<<20)); err != nil {
			t.Errorf("ipv6 %v: %v", v6, err)
		}
	}
	st := s.Stats()
	t.Logf("%+v", st)
	if st.Retransmits == 0 {
		t.Error("nothing was sent again: was there loss?")
	}
}

func TestWritevIsOneFrame(t *testing.T) {
	l := newLab(t, true)
	s, client, w := accepted(t, l, l.options(0, 1))
	piece := random(12 << 10)
	// The SYN-ACK is counted when the system call has returned.
	waitFor(t, "the SYN-ACK to be counted", func() bool { return s.Stats().FramesOut == 1 })
	n, err := w.conn.Writev([][]byte{piece[:7], nil, piece[7:100], piece[100:]})
	if n != len(piece) || err != nil {
		t.Fatalf("writev: %d, %v", n, err)
	}
	got := make([]byte, len(piece))
	_, err = io.ReadFull(client, got)
	must(t, err)
	if !bytes.Equal(got, piece) {
		t.Error("the pieces arrive changed")
	}
	waitFor(t, "the frame to be counted", func() bool { return s.Stats().FramesOut > 1 })
	if frames := s.Stats().FramesOut - 1; frames != 1 {
		t.Errorf("%d frames, want 1", frames)
	}
	big := [][]byte{random(100 << 10), random(3 << 20), random(1), random(2 << 20)}
	all := bytes.Join(big, nil)
	go func() {
		for len(big) > 0 {
			n, err := w.conn.Writev(big)
			for n > 0 {
				m := min(n, len(big[0]))
				big[0] = big[0][m:]
				n -= m
				if len(big[0]) == 0 {
					big = big[1:]
				}
			}
			if errors.Is(err, party.ErrAgain) {
				w.wait(party.Writable)
			}
		}
		_ = w.conn.CloseWrite()
	}()
	if got, err = io.ReadAll(client); err != nil || !bytes.Equal(got, all) {
		t.Errorf("%d bytes arrive of %d, %v", len(got), len(all), err)
	}
}
