package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/e2e/spray"
	"hawser/pkg/admin"
	"hawser/pkg/guard"
	"hawser/pkg/shield"
)

const (
	floodRate = 4000 // SYNs per second: little, so that a busy machine can do the rest
	floodTime = 3 * time.Second
)

// strictRules are what careful hosts have: whatever connection tracking does
// not understand is dropped.
var strictRules = [][]string{
	{"-t", "mangle", "-A", "PREROUTING", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"},
	{"-t", "filter", "-I", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"},
}

// TestSYNFlood: while somebody sends SYNs of forged sources, the kernel answers
// them: clients get through, connection tracking does not grow, no flow comes of
// them, and connections from before, of meanwhile and past the edge live on.
func TestSYNFlood(t *testing.T) {
	lab.NeedRoot(t)
	needShield(t)
	r := start(t, fast(), pair.Options{})
	for _, port := range []int{80, pair.DirectPort} {
		r.serve(port, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
	for _, rule := range strictRules {
		r.iptables(rule...)
	}
	steered, direct := r.origin(lab.IPv4, 80), r.origin(lab.IPv4, pair.DirectPort)
	before := []*net.TCPConn{r.mustDial(steered, time.Minute), r.mustDial(direct, time.Minute)}
	r.repeat(before...)
	tracked := r.tracked()

	f := r.flood(steered, floodRate)
	r.awaitFlood(true)
	unseen := f.sender.Sent() // the kernel may have been asked too late for these
	bad := r.crooksInFlood(t)
	meanwhile := []*net.TCPConn{}
	failed, done := 0, 0
	const least = 20 // clients, for which a busy machine may need longer
	for end := time.Now().Add(floodTime); time.Now().Before(end) || done < least && time.Now().Before(end.Add(20*time.Second)); done++ {
		to := steered
		if done%4 == 3 {
			to = direct
		}
		c, err := r.dial(to, 20*time.Second)
		if err != nil {
			failed++
			continue
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		r.repeat(c)
		if done < 4 {
			meanwhile = append(meanwhile, c)
			continue
		}
		c.Close()
	}
	r.repeat(before...)
	during := r.tracked()
	sent := f.end()
	s := r.status()
	t.Logf("%d SYNs in %v, %d clients, %d entries of connection tracking before and %d after; counters %v",
		sent, floodTime, done, tracked, during, guardCounters(s))
	c := s.Counters
	switch {
	case failed > 0:
		t.Errorf("%d of %d clients have failed", failed, done)
	case done < least:
		t.Errorf("only %d clients within %v", done, floodTime+20*time.Second)
	}
	if answered := c["kernel_syns_answered"]; answered < uint64(sent-unseen)*3/4 || c["kernel_syns_bad"] != bad {
		t.Errorf("of %d SYNs, %d of them before the flood was noticed, the kernel has answered %d and dropped %d, want %d", sent, unseen, answered, c["kernel_syns_bad"], bad)
	}
	// A connection each, and what the guard has seen before the kernel took over.
	if most := tracked + done + int(c["guard_syns"]) + 100; during > most {
		t.Errorf("connection tracking has grown from %d to %d entries, want at most %d", tracked, during, most)
	}
	if c["guard_admitted"] > uint64(done+2) || c["flows_started"] > uint64(done+2) {
		t.Errorf("%d clients, but %d flows admitted and %d started", done, c["guard_admitted"], c["flows_started"])
	}

	r.awaitFlood(false)
	r.repeat(before...)
	r.repeat(meanwhile...)
	r.repeat(r.mustDial(steered, 20*time.Second))
	for _, c := range append(before, meanwhile...) {
		c.Close()
	}
	r.silentFlood(steered)
	if got := r.status().Handshakes; got.Floods != 2 {
		t.Errorf("counted %d floods", got.Floods)
	}
	for _, rule := range strictRules {
		r.iptables(undone(rule)...)
	}
	if err := r.pair.Stop(); err != nil {
		t.Error(err)
	}
	r.noPrograms()
}

// silentFlood is another flood, which no client meets at first: that no cookie comes
// back then is no sign that a rule drops them.
func (r *rig) silentFlood(steered string) {
	r.t.Helper()
	f := r.flood(steered, floodRate)
	r.awaitFlood(true)
	time.Sleep(time.Second)
	answered := r.status().Counters["kernel_syns_answered"]
	r.repeat(r.mustDial(steered, 20*time.Second))
	time.Sleep(500 * ms)
	f.end()
	if s := r.status(); !s.Handshakes.Flood || s.Counters["kernel_syns_answered"] == answered {
		r.t.Errorf("in another flood the kernel answers no longer: %+v; %s", s.Handshakes, lastLine(r.pair.Edge.Output()))
	}
}

// crooksInFlood are clients that break the rules while the kernel answers: what
// is damaged, odd or forged is counted, makes nothing and gets no answer, and a
// cookie makes one connection, however often it comes back. It returns how many
// SYNs were damaged.
func (r *rig) crooksInFlood(t *testing.T) (damaged uint64) {
	t.Helper()
	before := r.counters(t)
	c := r.crook(t, lab.IPv4, 6000, 80)
	for _, spoil := range []func(ip []byte){
		func(ip []byte) { ip[41] = 0; fixTCP(ip, false) },               // an option of length 0
		func(ip []byte) { ip[40], ip[41] = 253, 40; fixTCP(ip, false) }, // one that is longer than the header
		func(ip []byte) { ip[42], ip[43] = 0, 9; fixTCP(ip, false) },    // segments of 9 bytes
		func(ip []byte) { ip[32] = 0xf0; fixTCP(ip, false) },            // options beyond the end
		func(ip []byte) { ip[37] ^= 1 },                                 // checksum
	} {
		c.send(syn, 0, spoil)
		damaged++
	}
	whole := c.packet(syn, 0)
	const odd = 20
	for id := range uint16(odd) {
		c.raw(fragment(whole, id, 0, 16, true)) // hides a SYN's options
	}
	r.counted(t, before, "kernel_syns_bad", damaged)
	r.counted(t, before, "kernel_syns_odd", odd)
	for _, f := range c.heard.of(c.port) {
		if !f.out {
			t.Errorf("an answer: %+v", f)
		}
	}
	ack := c.greet(1)
	if w := c.answers(1)[0].window; w != 0 {
		t.Errorf("the kernel's SYN-ACK opens %d", w)
	}
	c.port++ // from another port the cookie is forged, and so are others
	c.ends.ClientPort++
	for i := range uint32(50) {
		forged := ack
		forged.Ack += i * 8_000_003
		c.send(forged, 0, nil)
	}
	c.port--
	c.ends.ClientPort--
	for range 20 {
		c.send(ack, 0, nil)
	}
	r.counted(t, before, "guard_admitted", 1)
	c.send(guard.Segment{Flags: guard.FlagRST, Seq: ack.Seq, Scale: guard.NoScale}, 0, nil)
	return damaged
}

// TestSYNFloodUnaided: where the kernel cannot help, the guard goes on alone
// and the log says why.
func TestSYNFloodUnaided(t *testing.T) {
	r := prepare(t, fast(), pair.Options{})
	if err := r.Sysctl("edge", "net/netfilter/nf_conntrack_tcp_loose", "0"); err != nil {
		t.Skipf("no connection tracking: %v", err)
	}
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	r.repeat(r.mustDial(r.origin(lab.IPv4, 80), 20*time.Second))
	f := r.flood(r.origin(lab.IPv4, 80), floodRate/2)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		c := r.mustDial(r.origin(lab.IPv4, 80), 20*time.Second)
		r.repeat(c)
		c.Close()
	}
	sent := f.end()
	r.eventually(t, "the guard to answer half of the flood", func() bool { return r.status().Counters["guard_cookies"] >= uint64(sent)/2 })
	s := r.status()
	if s.Handshakes.Flood || s.Handshakes.Floods > 0 || s.Counters["kernel_syns_answered"] > 0 {
		t.Errorf("of %d SYNs: %+v, %v", sent, s.Handshakes, guardCounters(s))
	}
	if n := strings.Count(r.pair.Edge.Output(), "nf_conntrack_tcp_loose is 0"); n != 1 {
		t.Errorf("the log says %d times why the kernel does not answer", n)
	}
}

// TestSYNFloodForeignRule: where a rule of the host drops what begins without a
// SYN, the edge notices that the ACKs do not come, and the guard goes on alone.
func TestSYNFloodForeignRule(t *testing.T) {
	lab.NeedRoot(t)
	needShield(t)
	r := start(t, fast(), pair.Options{})
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	rule := []string{"-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "!", "--syn", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"}
	r.iptables(rule...)
	defer r.iptables(undone(rule)...)
	to := r.origin(lab.IPv4, 80)
	r.repeat(r.mustDial(to, 20*time.Second))
	f := r.flood(to, floodRate)
	r.awaitFlood(true)
	for range 150 { // accepted by the kernel, and then nothing
		r.mustDial(to, 20*time.Second).Close()
	}
	r.awaitFlood(false)
	if log := r.pair.Edge.Output(); !strings.Contains(log, "a rule of this host drops them") {
		t.Errorf("the log does not say why the kernel answers no longer: %s", lastLine(log))
	}
	r.repeat(r.mustDial(to, 20*time.Second))
	f.end()
	r.noPrograms()
}

// needShield skips the test where the kernel cannot answer SYNs.
func needShield(t *testing.T) {
	s, err := shield.New(shield.Options{Hub: 1})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Skipf("this kernel cannot answer SYNs: %v", err)
	}
}

// undone is the command that takes a rule away.
func undone(rule []string) []string {
	out := append([]string(nil), rule...)
	out[2] = "-D"
	return out
}

func (r *rig) iptables(args ...string) {
	r.t.Helper()
	if out, err := r.Exec("edge", append([]string{"iptables"}, args...)...); err != nil {
		r.t.Fatalf("iptables %v: %v: %s", args, err, out)
	}
}

// tracked is how many entries connection tracking has on the edge.
func (r *rig) tracked() (n int) {
	r.t.Helper()
	err := r.Do("edge", func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// repeat sends some bytes over each connection and waits for their return.
func (r *rig) repeat(conns ...*net.TCPConn) {
	r.t.Helper()
	for i, c := range conns {
		want := fmt.Sprintf("%d of %v", i, c.LocalAddr())
		got := make([]byte, len(want))
		_, err := c.Write([]byte(want))
		if err == nil {
			_, err = io.ReadFull(c, got)
		}
		if err == nil && string(got) != want {
			err = errors.New("other bytes")
		}
		if err != nil {
			r.t.Fatalf("connection %d, %v to %v: %v", i, c.LocalAddr(), c.RemoteAddr(), err)
		}
	}
}

// flooding is a flood under way.
type flooding struct {
	sender *spray.Sender
	stop   chan struct{}
	sent   chan int
}

func (r *rig) flood(to string, rate int) *flooding {
	r.t.Helper()
	s, err := spray.NewSender(r.Lab, netip.MustParseAddrPort(to), rate)
	if err != nil {
		r.t.Fatal(err)
	}
	f := &flooding{sender: s, stop: make(chan struct{}), sent: make(chan int, 1)}
	go func() { f.sent <- s.Run(f.stop) }()
	r.t.Cleanup(func() { f.end() })
	return f
}

// end stops the flood and says how many SYNs it had.
func (f *flooding) end() int {
	if f.stop != nil {
		close(f.stop)
		f.stop = nil
		return <-f.sent
	}
	return 0
}

func (r *rig) status() admin.Status {
	r.t.Helper()
	s, err := r.pair.Status("edge")
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// awaitFlood waits until the edge has noticed that there is a flood, or none.
func (r *rig) awaitFlood(want bool) {
	r.t.Helper()
	for range 200 {
		if r.status().Handshakes.Flood == want {
			return
		}
		if log := r.pair.Edge.Output(); want && strings.Contains(log, "not answered in the kernel") {
			r.t.Skipf("this kernel cannot answer SYNs: %s", lastLine(log))
		}
		time.Sleep(100 * ms)
	}
	r.t.Fatalf("after 20 s the edge does not say flood: %v; its log:\n%s", want, r.pair.Edge.Output())
}

// guardCounters are a status' counters of the handshakes that are not zero.
func guardCounters(s admin.Status) map[string]uint64 {
	some := map[string]uint64{}
	for name, n := range s.Counters {
		if n > 0 && (strings.HasPrefix(name, "guard_") || strings.HasPrefix(name, "kernel_")) {
			some[name] = n
		}
	}
	return some
}

// noPrograms fails the test if a program is left on the clients' interface.
func (r *rig) noPrograms() {
	r.t.Helper()
	err := r.Do("edge", func() error {
		dev, err := net.InterfaceByName(lab.LAN)
		if err != nil {
			return err
		}
		got, err := link.QueryPrograms(link.QueryOptions{Target: dev.Index, Attach: ebpf.AttachTCXIngress})
		if err == nil && len(got.Programs) > 0 {
			err = fmt.Errorf("%d programs are left on %s", len(got.Programs), lab.LAN)
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
}
