package e2e

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/identity"
)

// relayRig is a lab with the stand-alone relay at work. Clients connect to the
// edge's LAN address; the port is the origin's.
type relayRig struct {
	*rig
	relay *pair.Relay
}

func prepareRelay(t testing.TB, ports ...uint16) *relayRig {
	t.Helper()
	lab.NeedRoot(t)
	l := lab.Build(t, lab.Spec{Name: "relay", Uplinks: fast()[:1], Seed: 1})
	r := &relayRig{rig: &rig{Lab: l, t: t}}
	var forwards []pair.Forward
	for _, p := range ports {
		forwards = append(forwards, pair.Forward{Port: p, To: netip.AddrPortFrom(l.Address("origin", lab.IPv4), p)})
	}
	var err error
	if r.relay, err = pair.NewRelay(l, forwards...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.relay.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		r.noLeaks()
	})
	return r
}

func startRelay(t testing.TB, ports ...uint16) *relayRig {
	t.Helper()
	r := prepareRelay(t, ports...)
	if err := r.relay.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *relayRig) at(port uint16) string {
	return netip.AddrPortFrom(r.Address("edge", lab.IPv4), port).String()
}

// settled waits until no flow is left and no descriptor of one.
func (r *relayRig) settled() {
	r.t.Helper()
	if err := r.relay.WaitIdle(20 * time.Second); err != nil {
		r.t.Error(err)
	}
	for _, p := range []*lab.Proc{r.relay.Near, r.relay.Far} {
		fds := 0
		for range 300 { // what waits for another flow does so for 10 s, a little more where it has carried several
			if fds = r.fds(p); fds < 40 {
				break
			}
			time.Sleep(50 * ms)
		}
		if fds >= 40 {
			r.t.Errorf("%d descriptors are open", fds)
		}
	}
}

// wantReset connects and wants to be reset, at once or soon.
func (r *relayRig) wantReset(t *testing.T, port uint16) {
	t.Helper()
	c, err := r.dial(r.at(port), time.Minute)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("port %d: %v, want a reset", port, err)
	}
}

// counter is one of a side's counters.
func (r *relayRig) counter(side, name string) uint64 {
	r.t.Helper()
	s, err := r.relay.Status(side)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Counters[name]
}

// TestRelay moves bytes each way and both ways at once, many connections side
// by side, and passes on half-closes, resets and a server's refusal.
func TestRelay(t *testing.T) {
	t.Parallel()
	r := startRelay(t, 80, 81, 82, 83, 84, 85, 86)
	t.Run("transfers", r.transfers)
	t.Run("many", r.many)
	t.Run("half-close", r.halfClose)
	t.Run("server resets", r.serverResets)
	t.Run("client resets", r.clientResets)
	t.Run("last words", r.lastWords)
	t.Run("server refuses", func(t *testing.T) {
		r.wantReset(t, 85) // nobody listens there
	})
	r.settled()
	if n := r.counter("near", "relay_handshakes"); n != 1 {
		t.Errorf("%d handshakes for all connections, want one", n)
	}
	for _, side := range []string{"near", "far"} {
		if n := r.counter(side, "relay_tampered") + r.counter(side, "relay_refused"); n != 0 {
			t.Errorf("%s: %d connections tampered with or refused", side, n)
		}
	}
}

func (r *relayRig) transfers(t *testing.T) {
	const size = bulk / 2
	up := make(chan gauge, 1)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		var sending sync.WaitGroup
		sending.Go(func() {
			_, _ = io.Copy(c, newNoise(1, size))
			_ = c.CloseWrite()
		})
		up <- receive(c, nil)
		sending.Wait()
	})
	c := r.mustDial(r.at(80), time.Minute)
	go send(t, c, size)
	check(t, receive(c, nil), 1, size)
	check(t, await(t, up), 2, size)
}

func (r *relayRig) many(t *testing.T) {
	const connections, size = 300, 100_000
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	var wg sync.WaitGroup
	for i := range connections {
		c, err := r.dial(r.at(81), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			go func() {
				_, _ = io.Copy(c, newNoise(byte(i), size))
				_ = c.CloseWrite()
			}()
			if g := receive(c, nil); g.err != nil || g.sum != sumOf(byte(i), size) {
				t.Errorf("connection %d: %v, %v", i, g, g.err)
			}
			c.Close()
		})
	}
	wg.Wait()
}

// halfClose: the client ends first, and the server answers long after.
func (r *relayRig) halfClose(t *testing.T) {
	r.serve(82, func(c *net.TCPConn) {
		defer c.Close()
		said, _ := io.ReadAll(c)
		time.Sleep(300 * ms)
		_, _ = c.Write(append([]byte("heard "), said...))
	})
	c := r.mustDial(r.at(82), time.Minute)
	if _, err := c.Write([]byte("all")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "heard all" {
		t.Errorf("got %q, %v", got, err)
	}
}

func (r *relayRig) serverResets(t *testing.T) {
	r.serve(83, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 3))
		_ = c.SetLinger(0)
		c.Close()
	})
	c := r.mustDial(r.at(83), time.Minute)
	_, _ = c.Write([]byte("abc"))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
}

func (r *relayRig) clientResets(t *testing.T) {
	ended := make(chan error, 1)
	r.serve(84, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = c.Write([]byte("hello"))
		_, err := io.ReadAll(c)
		ended <- err
	})
	c := r.mustDial(r.at(84), time.Minute)
	_, _ = io.ReadFull(c, make([]byte, 5))
	_ = c.SetLinger(0)
	c.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server read %v, want a reset", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the server was not told")
	}
}

// lastWords: a server that refuses an upload resets it after it has said why.
func (r *relayRig) lastWords(t *testing.T) {
	r.serve(86, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1000))
		_, _ = io.WriteString(c, "too large")
		c.Close()
	})
	for _, size := range []int64{2000, 5e6} {
		c := r.mustDial(r.at(86), time.Minute)
		_, _ = io.Copy(c, newNoise(1, size)) // the reset ends it
		if p, _ := io.ReadAll(c); string(p) != "too large" {
			t.Errorf("after an upload of up to %d bytes the client has heard %q", size, p)
		}
		c.Close()
	}
}

// TestRelayWrongKey: neither a client that the gateway does not know nor a
// gateway of another key is dealt with, and both say so.
func TestRelayWrongKey(t *testing.T) {
	for _, c := range []struct {
		name, says string
		named      func(*pair.Relay) *string
	}{
		{"client unknown", "is not configured at the gateway", func(r *pair.Relay) *string { return &r.NearKey }},
		{"another gateway", "the configuration expects", func(r *pair.Relay) *string { return &r.FarKey }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := prepareRelay(t, 80)
			stranger, err := identity.Generate(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			*c.named(r.relay) = stranger.String()
			if err := errors.Join(r.relay.StartFar(), r.relay.StartNear()); err != nil {
				t.Fatal(err)
			}
			if err := r.relay.Near.WaitFor(c.says, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			r.wantReset(t, 80)
			s, err := r.relay.Status("near")
			if err != nil || s.Sessions[0].State != "down" || !strings.Contains(s.Sessions[0].Links[0].LastError, c.says) {
				t.Errorf("%+v, %v", s.Sessions, err)
			}
		})
	}
}

// TestRelayTamper flips bits between the two sides: connections end, counted,
// and never deliver a wrong byte.
func TestRelayTamper(t *testing.T) {
	r := prepareRelay(t, 80)
	r.relay.Via = netip.AddrPortFrom(r.Address("cloud", lab.IPv4), meddlerPort)
	m := newMeddler(pair.RelayPort)
	m.serve(r.rig)
	if err := r.relay.Start(); err != nil {
		t.Fatal(err)
	}
	const size = 4_000_000
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, _ = io.Copy(c, newNoise(1, size))
	})
	m.flipEvery.Store(2_000_000)
	whole, cut := 0, 0
	for range 12 {
		c, err := r.dial(r.at(80), time.Minute)
		if errors.Is(err, syscall.ECONNRESET) { // before the kernel told of the connection
			cut++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(c, newNoise(2, size))
			sent <- err
		}()
		n, err := sameAs(c, newNoise(1, size))
		if err == nil && n < size {
			err = <-sent // the kernel tells of a reset once: the sender may have got it
		}
		switch {
		case errors.Is(err, errDiffers):
			t.Fatalf("a wrong byte was delivered at %d", n)
		case err == nil && n == size:
			whole++
		case err == nil:
			t.Fatalf("the stream ended well after %d of %d bytes", n, size)
		default:
			cut++
		}
		c.Close()
	}
	m.flipEvery.Store(0)
	counted := uint64(0)
	for _, side := range []string{"near", "far"} {
		counted += r.counter(side, "relay_tampered") + r.counter(side, "relay_refused")
	}
	t.Logf("%d bits flipped; %d streams whole, %d cut; %d counted", m.flips.Load(), whole, cut, counted)
	if cut == 0 || counted == 0 || m.flips.Load() == 0 {
		t.Errorf("%d bits flipped: %d streams cut, %d counted", m.flips.Load(), cut, counted)
	}
}

var errDiffers = errors.New("differs")

// sameAs compares a stream with what it should be, to its end.
func sameAs(got, want io.Reader) (n int64, err error) {
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		k, err := got.Read(a)
		if _, werr := io.ReadFull(want, b[:k]); werr != nil || string(a[:k]) != string(b[:k]) {
			return n, errDiffers
		}
		n += int64(k)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// TestRelayRestart: each side may be killed and started again; connections of
// before are reset, new ones work.
func TestRelayRestart(t *testing.T) {
	r := startRelay(t, 80)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	for _, side := range []string{"far", "near"} {
		old := r.mustDial(r.at(80), time.Minute)
		echoes(t, old)
		proc, start := r.relay.Far, r.relay.StartFar
		if side == "near" {
			proc, start = r.relay.Near, r.relay.StartNear
		}
		proc.Kill()
		if _, err := old.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s killed: read %v, want a reset", side, err)
		}
		if err := start(); err != nil {
			t.Fatal(err)
		}
		again := time.Now()
		for {
			c, err := r.dial(r.at(80), time.Minute)
			if err == nil {
				if _, err = c.Write([]byte("x")); err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				c.Close()
			}
			if err == nil {
				break
			}
			if time.Since(again) > 20*time.Second {
				t.Fatalf("%s started again: %v\n%s", side, err, r.relay.Near.Output())
			}
			time.Sleep(50 * ms)
		}
		t.Logf("%s is used again %v after its start", side, time.Since(again).Round(ms))
	}
}

func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

// TestRelayBadConfig: a mistake is one line that names the key, from the relay
// and from its check, and nothing starts.
func TestRelayBadConfig(t *testing.T) {
	for _, c := range []struct{ binary, file, text, want string }{
		{"hawser/edge", "near.yaml", "forward: [{listen: \":8080\", service: web}]\n", "gateway.address: missing"},
		{"hawser/edge", "near.yaml", "gateway: {adress: x}\n", `"adress": unknown key`},
		{"hawser/cloud", "far.yaml", "services: [{name: web, to: \"10.0.0.1\"}]\n", "has no port"},
		{"hawser/cloud", "far.yaml", "namespace: x\n", `"namespace": unknown key`},
	} {
		bin, err := lab.Binary(c.binary)
		if err != nil {
			t.Fatal(err)
		}
		conf := t.TempDir() + "/" + c.file
		if err := os.WriteFile(conf, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"relay", "-c", conf}, {"relay", "check", "-c", conf}} {
			out, err := exec.Command(bin, args...).CombinedOutput()
			text := strings.TrimSpace(string(out))
			if err == nil || !strings.Contains(text, c.want) || args[1] == "-c" && strings.Contains(text, "\n") {
				t.Errorf("%s %v: %v, %q; want one line with %q", c.binary, args, err, text, c.want)
			}
		}
	}
}
