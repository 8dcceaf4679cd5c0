package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/e2e/lab"
	"hawser/pkg/guard"
)

// violators are clients that break the rules. What is sent into a window of 0 is
// answered, counted and thrown away; forged and damaged segments make nothing;
// others go on.
func (r *rig) violators(t *testing.T) {
	var bytes atomic.Int64
	for _, port := range []int{90, 91, 92} {
		r.serve(port, func(c *net.TCPConn) {
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			bytes.Add(n)
		})
	}
	r.serve(93, sender(10_000))
	families(t, func(t *testing.T, f lab.Family) { r.intoShutWindow(t, f, &bytes) })
	t.Run("forged", r.forged)
	t.Run("damaged", r.damaged)
	t.Run("replayed", r.replayed)
	t.Run("fragments", r.fragments)
	if g := r.fetch(r.origin(lab.IPv4, 93), 20*time.Second); g.err != nil || g.size != 10_000 {
		t.Errorf("a client that keeps the rules: %v, %v", g, g.err)
	}
}

// intoShutWindow sends data into a window of 0 and, once that is open, again.
func (r *rig) intoShutWindow(t *testing.T, f lab.Family, bytes *atomic.Int64) {
	const port = 90
	release := r.hold(t, f, port)
	defer release()
	before, had := r.counters(t), bytes.Load()
	c := r.crook(t, f, 1234, port)
	ack := c.greet(1)
	if w := c.answers(1)[0].window; w != 0 {
		t.Fatalf("the SYN-ACK opens %d", w)
	}
	sent := 0
	for i, n := range []int{1000, 500, 1400, 1} {
		s := ack
		s.Seq += uint32(sent)
		c.send(s, n, nil)
		sent += n
		if a := c.answers(i + 2)[i+1]; a.window != 0 || a.ack != ack.Seq || a.flags != header.TCPFlagAck {
			t.Errorf("%d bytes are answered by %+v", n, a)
		}
	}
	r.counted(t, before, "guard_discarded_bytes", uint64(sent))
	r.counted(t, before, "guard_probes", 4)
	r.counted(t, before, "guard_admitted", 1)
	release()
	if u := c.answers(6)[5]; u.window == 0 || u.ack != ack.Seq {
		t.Errorf("the update is %+v", u)
	}
	if n := bytes.Load() - had; n != 0 {
		t.Errorf("%d bytes have reached the server", n)
	}
	ack.Ack = c.answers(6)[5].seq
	c.send(ack, 700, nil)
	fin := ack
	fin.Flags |= guard.FlagFIN
	fin.Seq += 700
	c.send(fin, 0, nil)
	r.eventually(t, "the data to reach the server", func() bool { return bytes.Load()-had == 700 })
	ended := c.answers(8)
	c.send(guard.Segment{Flags: guard.FlagRST, Seq: fin.Seq + 1, Scale: guard.NoScale}, 0, nil)
	if a := ended[len(ended)-1]; a.ack != fin.Seq+1 {
		t.Errorf("at the end came %+v", a)
	}
}

// forged sends ACKs that do not answer the SYN-ACK. (The host steers only what
// began with a SYN: others take the way that they would take without an edge.)
func (r *rig) forged(t *testing.T) {
	before := r.counters(t)
	c := r.crook(t, lab.IPv4, 2000, 91)
	c.greet(1)
	const n = 300
	for i := range uint32(n) {
		c.send(guard.Segment{Flags: guard.FlagACK, Seq: 1001, Ack: i * 8_000_003, Window: 1000, Scale: guard.NoScale}, 10, nil)
	}
	r.counted(t, before, "guard_forged", n)
	r.counted(t, before, "guard_admitted", 0)
}

// damaged sends SYNs that are wrong in one way each, and at last a good one.
// The host's connection tracking takes those whose flags or checksums are wrong
// for nobody's, so that the edge does not see them; none makes anything.
func (r *rig) damaged(t *testing.T) {
	before := r.counters(t)
	c := r.crook(t, lab.IPv4, 3000, 91)
	origin := r.capture("origin")
	tcp := func(change func(ip []byte)) func([]byte) {
		return func(ip []byte) { change(ip); fixTCP(ip, false) }
	}
	for _, spoil := range []func([]byte){
		tcp(func(ip []byte) { ip[41] = 0 }),               // an option of length 0
		tcp(func(ip []byte) { ip[40], ip[41] = 253, 40 }), // one that is longer than the header
		tcp(func(ip []byte) { ip[42], ip[43] = 0, 9 }),    // segments of 9 bytes
		tcp(func(ip []byte) { ip[32] = 0xf0 }),            // options beyond the end
		tcp(func(ip []byte) { ip[33] |= guard.FlagFIN }),  // SYN and FIN
		tcp(func(ip []byte) { ip[33] |= guard.FlagRST }),  // SYN and RST
		func(ip []byte) { ip[37] ^= 1 },                   // checksum
		func(ip []byte) { ip[10] ^= 1 },                   // that of IP
	} {
		c.send(syn, 0, spoil)
	}
	var bad uint64
	r.eventually(t, "at least the 3 damaged SYNs with absurd options to be counted", func() bool {
		after := r.counters(t)
		bad = after["guard_bad_syns"] - before["guard_bad_syns"] + after["hub_bad_frames"] - before["hub_bad_frames"]
		return bad >= 3
	})
	time.Sleep(300 * ms) // for answers, which must not come
	t.Logf("of 8 damaged SYNs the edge has counted %d", bad)
	for _, f := range c.heard.of(c.port) {
		if !f.out && f.flags&header.TCPFlagRst == 0 {
			t.Errorf("an answer: %+v", f)
		}
	}
	for _, f := range origin.of(91) {
		if f.out && f.flags&header.TCPFlagRst == 0 {
			t.Errorf("the server has answered: %+v", f)
		}
	}
	c.port++
	c.ends.ClientPort++
	c.greet(1)
	r.counted(t, before, "guard_cookies", 1)
}

// replayed sends a valid ACK many times: it makes one connection; from another
// port it makes none.
func (r *rig) replayed(t *testing.T) {
	before := r.counters(t)
	release := r.hold(t, lab.IPv4, 92)
	defer release()
	c := r.crook(t, lab.IPv4, 4000, 92)
	ack := c.greet(1)
	for range 100 {
		c.send(ack, 0, nil)
	}
	c.port++
	c.ends.ClientPort++ // the cookie is of other ends
	c.greet(1)
	for range 10 {
		c.send(ack, 0, nil)
	}
	r.counted(t, before, "guard_forged", 10)
	r.counted(t, before, "guard_admitted", 1)
	c.ends.ClientPort--
	c.send(guard.Segment{Flags: guard.FlagRST, Seq: ack.Seq, Scale: guard.NoScale}, 0, nil)
	r.counted(t, before, "guard_abandoned", 1)
}

// fragments sends a SYN in pieces, whole, in part, and overlapping. The host
// puts together what it tracks; whatever then reaches the hub in pieces is
// dropped and counted. Nothing of it makes a connection.
func (r *rig) fragments(t *testing.T) {
	before := r.counters(t)
	c := r.crook(t, lab.IPv4, 5000, 91)
	whole := c.packet(syn, 0)
	for id := range uint16(20) {
		c.raw(fragment(whole, id, 0, 16, true)) // the rest never comes
	}
	for id := uint16(100); id < 120; id++ { // overlapping: the second says other flags
		c.raw(fragment(whole, id, 0, 16, true))
		c.raw(fragment(whole, id, 8, 16, true))
	}
	for id := uint16(200); id < 220; id++ { // the TCP header is in the second alone
		c.raw(fragment(whole, id, 16, len(whole)-20, false))
	}
	c.raw(fragment(whole, 300, 0, 16, true))
	c.raw(fragment(whole, 300, 16, len(whole)-20, false))
	var after map[string]uint64
	grown := func(name string) uint64 { return after[name] - before[name] }
	r.eventually(t, "the SYN in two pieces to be answered, or dropped at the hub", func() bool {
		after = r.counters(t)
		return grown("guard_cookies")+grown("hub_bad_frames") > 0
	})
	time.Sleep(300 * ms) // for what must not come of it
	after = r.counters(t)
	answered, dropped := grown("guard_cookies"), grown("hub_bad_frames")
	t.Logf("whole in two pieces: answered %d times; %d pieces dropped at the hub", answered, dropped)
	if answered > 1 {
		t.Errorf("answered %d times, %d pieces dropped", answered, dropped)
	}
	if n := after["guard_admitted"] - before["guard_admitted"]; n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// fragment cuts bytes from to end out of an IPv4 packet's payload.
func fragment(ip []byte, id uint16, from, end int, more bool) []byte {
	p := append(append([]byte{}, ip[:20]...), ip[20+from:20+end]...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[4:], id)
	offset := uint16(from / 8)
	if more {
		offset |= 0x2000
	}
	binary.BigEndian.PutUint16(p[6:], offset)
	fixIP(p)
	return p
}

// eventually waits for what other programs do.
func (r *rig) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(25 * ms) {
		if ok() {
			return
		}
	}
	t.Errorf("waited in vain for %s", what)
}
